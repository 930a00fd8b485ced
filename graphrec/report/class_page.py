"""The report of one classifier of several classes: how good, whom it takes for whom, how it learned."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.figures.names import elide
from graphrec.metrics import CLASS_METRICS, METRICS

from .page import render, write_atomically
from .pictures import Picture, history_pictures
from .tables import BETTER, Table, count, history_table, number, part_title, percent
from .view import KeyFigure

_ALL = {**CLASS_METRICS, **METRICS}


@dataclass
class ClassPage:
    """Everything that `write_class_page` shows; what is left empty is left out of the page.

    Args:
        model: Its name.
        things: What is classified, such as ``"images"``.
        classes: C names.
        counts: Things of each class by part, C numbers each.
        metrics: Values by part, as `graphrec.metrics.class_metrics` has them.
        part: The part that is shown closely.
        confusion: (C, C) numbers of that part: rows are the true classes, columns the predicted.
        per_class: Of that part, of each class: precision, recall, f1, number.
        pictures: Further pictures of that part, such as the confusion and the worst mistakes.
        data: Where the things came from.
        history: Rows of `graphrec.training.History`.
        model_facts: More of the model, as it is shown.
        settings: All settings of the run.
        origin: Seed, fingerprint, versions.
        created: When, as text.
        seconds: That the fit took.
        warnings: Sentences for the top of the page.
    """

    model: str
    things: str
    classes: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    metrics: Mapping[str, Mapping[str, float | None]]
    part: str
    confusion: NDArray[np.int64]
    per_class: Sequence[Mapping[str, float | int | None]]
    pictures: Sequence[Picture] = ()
    data: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    model_facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    seconds: float | None = None
    warnings: Sequence[str] = ()

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each class among the things of the part shown, (C,)."""
        there = self.confusion.sum(1)
        return there / max(int(there.sum()), 1)


def write_class_page(path: str | os.PathLike[str], page: ClassPage) -> Path:
    """Write the page as one HTML file that needs no network and no script.

    Raises:
        RunError: The file cannot be written.
    """
    names = dict.fromkeys(name for values in page.metrics.values() for name in values)
    html = render(
        "classes.html.j2",
        page=page,
        title=f"{page.model} on {count(len(page.classes))} classes of {page.things}",
        headline=headline(page),
        figures=key_figures(page),
        metric_table=metric_table(page),
        class_table=class_table(page),
        part_table=part_table(page),
        history=history_pictures(page.history),
        steps=history_table(page.history),
        glossary={name: _ALL[name] for name in names if name in _ALL},
    )
    return write_atomically(path, html)


def headline(page: ClassPage) -> str:
    """What was learned from what, and how much of it is right."""
    seen = sum(page.counts.get("train", ()))
    text = f"{page.model} learned to tell {count(len(page.classes))} classes apart"
    text += f" from {count(seen)} {page.things}." if seen else "."
    found = page.metrics[page.part].get("accuracy")
    if found is None:
        return text
    where = "it learned from" if page.part == "train" else "it had not learned from"
    total = count(int(page.confusion.sum()))
    return (
        f"{text} Of {total} {page.things} that {where}, it names the class of {percent(found)} right; "
        f"whoever always says the commonest class has {percent(float(page.shares.max()))}."
    )


def key_figures(page: ClassPage) -> list[KeyFigure]:
    """The numbers at the top, each beside what knowing nothing gives."""
    shares = page.shares
    entropy = -sum(float(p) * math.log(float(p)) for p in shares if p > 0)
    guesses = {
        "accuracy": f"commonest class: {percent(float(shares.max()))}",
        "top5_accuracy": f"five commonest: {percent(float(np.sort(shares)[-5:].sum()))}",
        "logloss": f"shares alone: {number(entropy)}",
        "f1_macro": f"guessing: about {number(1 / len(shares), 2)}",
    }
    values = page.metrics[page.part]
    return [
        KeyFigure(_ALL[name].title, _shown(name, values[name]), _ALL[name].meaning, guess)
        for name, guess in guesses.items()
        if name in values
    ]


def _shown(name: str, value: float | None) -> str:
    return percent(value) if name.endswith("accuracy") else number(value)


def metric_table(page: ClassPage) -> Table:
    """Every metric by part."""
    names = dict.fromkeys(name for values in page.metrics.values() for name in values)
    rows = [
        [
            f"{_ALL[name].title} {BETTER[_ALL[name].better]}" if name in _ALL else name,
            *(number(values.get(name)) for values in page.metrics.values()),
        ]
        for name in names
    ]
    return Table("Every metric by part", ["metric", *map(part_title, page.metrics)], rows)


def class_table(page: ClassPage) -> Table:
    """A row per class: how many there are, how they fare, and what they are most often taken for."""
    rows = []
    for index, (name, values) in enumerate(zip(page.classes, page.per_class, strict=True)):
        wrong = page.confusion[index].copy()
        wrong[index] = 0
        other = int(wrong.argmax())
        taken = f"{elide(page.classes[other], 24)} ({count(int(wrong[other]))})" if wrong[other] else "–"
        cells = [number(values[key], 3) for key in ("precision", "recall", "f1")]
        rows.append([elide(name, 40), taken, count(values[page.things]), *cells])
    columns = ["class", "most often taken for", page.things, "precision", "recall", "F1"]
    return Table("Every class", columns, rows, text=2)


def part_table(page: ClassPage) -> Table:
    """How many there are of every class in every part."""
    rows = [
        [part_title(part), count(sum(counts)), count(min(counts)), count(max(counts))]
        for part, counts in page.counts.items()
    ]
    columns = ["part", page.things, "of the rarest class", "of the commonest"]
    return Table(f"{page.things.capitalize()} by part", columns, rows)
