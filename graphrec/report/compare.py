"""One page with one table: several models on the same data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from graphrec.metrics import METRICS, Metric

from . import plots
from .page import render, write_atomically
from .pictures import Picture
from .svg import figure_svg
from .tables import BETTER, count, duration, number

_COSTS = {"epochs": "Epochs", "seconds": "Seconds to fit", "parameters": "Parameters"}


@dataclass
class Cell:
    """A value of the table, the length of its bar from 0 to 1, and whether it is the best of its column."""

    text: str
    length: float = 0.0
    best: bool = False


def write_comparison(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Model comparison",
    data: str = "",
    part: str = "",
    sort: str = "auc",
    command: str = "",
    created: str = "",
) -> Path:
    """Write one page that compares models.

    Args:
        path: File to write.
        rows: One mapping per model: ``"model"``, any metrics of `graphrec.metrics.METRICS` (None where
            undefined), also of single labels as ``"click/auc"``, ``"seconds"`` that fitting took,
            ``"epochs"``, ``"parameters"``, ``"part"``; ``"report"``, the page of its own run, as a path from
            the folder of this one; or ``"error"`` with why it failed.
        title: Heading.
        data: Where the rows came from.
        part: Part of the data that was evaluated, such as "valid"; that of the rows when empty.
        sort: Metric by which the models are ordered, best first.
        command: Shell command or code that repeats it.
        created: When, as text.

    Raises:
        RunError: The file cannot be written.
    """
    good = sort_rows([row for row in rows if not row.get("error")], sort)
    failed = [row for row in rows if row.get("error")]
    columns = _columns(good)
    by_column = {name: cells(name, [row.get(name) for row in good]) for name in columns}
    html = render(
        "comparison.html.j2",
        title=title,
        data=data,
        part=part or next((row["part"] for row in good if row.get("part")), ""),
        command=command,
        created=created,
        sort=METRICS[sort].title,
        columns=[_heading(name) for name in columns],
        rows=[
            (row["model"], quote(row.get("report") or ""), [by_column[name][i] for name in columns])
            for i, row in enumerate(good)
        ],
        failed=failed,
        summary=summary(good, sort),
        tradeoff=_tradeoff(good, sort),
    )
    return write_atomically(path, html)


def sort_rows(rows: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """Best first by one metric; rows for which it is undefined come last."""
    return sorted(rows, key=lambda r: (r.get(metric) is None, badness(metric, r.get(metric) or 0.0)))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that some row has, those of single labels behind the others, then the costs."""
    found = dict.fromkeys(k for row in rows for k, v in row.items() if v is not None)
    of_labels = [name for name in found if "/" in name and _metric(name)]
    return [n for n in METRICS if n in found] + of_labels + [n for n in _COSTS if n in found]


def _metric(name: str) -> Metric | None:
    """The metric of "auc" or "click/auc"; None for a cost."""
    return METRICS.get(name.rsplit("/", 1)[-1])


def badness(name: str, value: float) -> float:
    """A number that is smaller for a better value of a metric or cost."""
    metric = _metric(name)
    better = metric.better if metric else "lower"
    return {"higher": -value, "lower": value, "one": abs(value - 1)}[better]


def cells(name: str, values: Sequence[float | None]) -> list[Cell]:
    """One column. Bars start at what guessing gives: one half for AUC, else zero."""
    known = [v for v in values if v is not None]
    start = 0.5 if name.rsplit("/", 1)[-1] in ("auc", "gauc", "gauc_weighted") else 0.0
    most = max((v - start for v in known), default=0.0)
    best = min((badness(name, v) for v in known), default=None)
    marks = _metric(name) is not None and len(set(known)) > 1
    return [
        Cell("–")
        if v is None
        else Cell(_text(name, v), max(0.0, v - start) / (most or 1), marks and badness(name, v) == best)
        for v in values
    ]


def _text(name: str, value: float) -> str:
    if name == "parameters":
        return count(value)
    return number(value, 1) if name == "seconds" else f"{value:.3g}" if name == "epochs" else number(value)


def _heading(name: str) -> str:
    if (metric := _metric(name)) is None:
        return _COSTS[name]
    label = name.rpartition("/")[0]
    return f"{label} {metric.title} {BETTER[metric.better]}".strip()


def summary(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The result in a sentence or two; ``rows`` are sorted."""
    ranked = [row for row in rows if row.get(metric) is not None]
    if not ranked:
        return "No model could be compared."
    title, best = METRICS[metric].title, ranked[0]
    text = f"{best['model']} is the best of {len(rows)} by {title}: {number(best[metric])}."
    if len(ranked) > 1:
        gap = abs(ranked[1][metric] - best[metric])
        text += f" Next is {ranked[1]['model']}, {number(gap)} behind."
    quick = min((r for r in ranked if r.get("seconds") is not None), key=lambda r: r["seconds"], default=None)
    if quick is not None:
        name = quick["model"]
        same = f"{name} was also the quickest to fit" if quick is best else f"The quickest to fit was {name}"
        text += f" {same} ({duration(quick['seconds'])})."
    return text


def _tradeoff(rows: Sequence[Mapping[str, Any]], metric: str) -> Picture | None:
    points = [r for r in rows if r.get(metric) is not None and (r.get("seconds") or 0) > 0]
    if len(points) < 2:
        return None
    names, seconds, values = ([r[k] for r in points] for k in ("model", "seconds", metric))
    title = METRICS[metric].title
    up = "higher" if METRICS[metric].better == "higher" else "lower"
    reads = f"Models further left were quicker to fit; {up} is better."
    svg = figure_svg(
        plots.plot_tradeoff(names, seconds, values, title), "tradeoff", f"{title} by seconds to fit"
    )
    return Picture("What quality costs", svg, reads, wide=True)
