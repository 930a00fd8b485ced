"""The page of a recipe's run: what came out over all repetitions, and everything to repeat it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphrec.metrics import CLASS_METRICS, METRICS, Metric

from .page import render, write_atomically
from .pictures import Picture
from .tables import BETTER, Table, count, number, part_title

_ALL = {**METRICS, **CLASS_METRICS}


@dataclass
class RunPage:
    """Everything that `write_run_page` shows; what is left empty is left out of the page.

    Args:
        title: Heading.
        task: What was done, in a line.
        metric: Full name of the metric that the headline is about, such as ``"test/accuracy"``.
        summary: Variant -> metric -> ``mean``, ``std``, ``n``.
        costs: Variant -> what else the table shows, such as parameters and mean seconds.
        rows: A mapping per repetition: variant, seed, split, metrics.
        about: More about the recipe.
        paper: Link.
        published: What the paper reports for the metric, by variant.
        spread: Picture of the metric over repetitions.
        curves: Learning curves.
        pictures: Those of the task.
        data: Facts of the data.
        recipe: The resolved recipe as YAML.
        command: That repeats it.
        origin: Versions, machine, time.
        created: When, as text.
        seconds: That all of it took.
    """

    title: str
    task: str
    metric: str
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]]
    costs: Mapping[str, Mapping[str, float]]
    rows: Sequence[Mapping[str, Any]]
    about: str = ""
    paper: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    spread: Picture | None = None
    curves: Sequence[Picture] = ()
    pictures: Sequence[Picture] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    command: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    seconds: float | None = None


def write_run_page(path: str | os.PathLike[str], page: RunPage) -> Path:
    """Write the page as one HTML file that needs no network and no script.

    Raises:
        RunError: The file cannot be written.
    """
    names = list(next(iter(page.summary.values())))
    html = render(
        "run.html.j2",
        page=page,
        headline=headline(page),
        results=result_table(page),
        repetitions=repetition_table(page),
        metric_title=metric_title(page.metric),
        metrics={n: _ALL[n] for n in dict.fromkeys(m.rpartition("/")[2] for m in names) if n in _ALL},
    )
    return write_atomically(path, html)


def metric_title(name: str) -> str:
    """``"test/f1_macro"`` as "Test macro F1", names without a title as they are."""
    part, _, metric = name.rpartition("/")
    title = _ALL[metric].title if metric in _ALL else metric.replace("_", " ")
    if not part:
        return title
    return f"{part_title(part).capitalize()} {title if title[:2].isupper() else title[0].lower() + title[1:]}"


def spread_text(found: Mapping[str, Any] | None) -> str:
    """``0.8812 ± 0.0734``."""
    if found is None or found["mean"] is None:
        return "–"
    std = "" if found["std"] is None else f" ± {number(found['std'])}"
    return number(found["mean"]) + std


def ranked(page: RunPage) -> list[str]:
    """Variants, best mean of the metric first; those without one last, in their order."""
    metric = _ALL.get(page.metric.rpartition("/")[2])
    sign = 1 if metric is not None and metric.better == "lower" else -1
    means = {
        name: (values.get(page.metric) or {"mean": None})["mean"] for name, values in page.summary.items()
    }
    return sorted(means, key=lambda name: (means[name] is None, sign * (means[name] or 0.0)))


def headline(page: RunPage) -> str:
    """The result in a sentence or two."""
    order = ranked(page)
    best = page.summary[order[0]].get(page.metric)
    if best is None or best["mean"] is None:
        return f"No repetition has a {metric_title(page.metric)}."
    over = f" over {best['n']} repetitions" if best["n"] > 1 else ", once"
    if len(order) == 1:
        return f"{order[0]} reaches a {_lower(page.metric)} of {spread_text(best)}{over}."
    text = f"{order[0]} has the best {_lower(page.metric)} of {len(order)}: {spread_text(best)}{over}."
    second = page.summary[order[1]].get(page.metric)
    return text + (f" Next is {order[1]} with {spread_text(second)}." if second else "")


def _lower(name: str) -> str:
    title = metric_title(name)
    return title[0].lower() + title[1:]


def result_table(page: RunPage) -> Table:
    """A row per variant, best first: mean and spread of every metric, what the paper has, costs."""
    metrics = _ordered(page)
    costs = list(dict.fromkeys(name for values in page.costs.values() for name in values))
    columns = [f"{metric_title(name)} {_arrow(name)}".strip() for name in metrics]
    if page.published:
        columns.insert(1, "published")
    rows = []
    for variant in ranked(page):
        cells = [spread_text(page.summary[variant].get(name)) for name in metrics]
        if page.published:
            cells.insert(1, number(page.published.get(variant), 3))
        rows.append([variant, *cells, *(_cost(page.costs[variant].get(name)) for name in costs)])
    return Table("Mean and standard deviation of every variant", ["variant", *columns, *costs], rows)


def _ordered(page: RunPage) -> list[str]:
    """All metrics: the main one, the others of its part, then those of other parts."""
    names = dict.fromkeys(name for values in page.summary.values() for name in values)
    part = page.metric.rpartition("/")[0]
    return sorted(names, key=lambda name: (name != page.metric, name.rpartition("/")[0] != part))


def _arrow(name: str) -> str:
    metric: Metric | None = _ALL.get(name.rpartition("/")[2])
    return BETTER[metric.better] if metric else ""


def _cost(value: float | None) -> str:
    if value is None:
        return "–"
    return count(value) if float(value).is_integer() else number(value, 1)


def repetition_table(page: RunPage) -> Table:
    """A row per repetition."""
    columns = list(dict.fromkeys(key for row in page.rows for key in row))
    named = {key: metric_title(key) if "/" in key else key for key in columns}
    rows = [[_cell(row.get(key)) for key in columns] for row in page.rows]
    return Table(f"All {len(rows)} repetitions", [named[key] for key in columns], rows)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
