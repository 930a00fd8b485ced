"""What a finished run leaves besides its repetitions: metrics, table, figures, versions, the page."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec import runs
from graphrec.report import RunPage, write_run_page
from graphrec.report.pictures import Picture
from graphrec.report.run_page import metric_title
from graphrec.report.run_plots import MOST_LINES, plot_curves, plot_spread
from graphrec.report.svg import inline_svg, svg_shape, svg_text

from .results import Repetition, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .runner import RecipeRun

_PACKAGES = ("graphrec", "torch", "torch-geometric", "numpy", "polars", "scikit-learn", "lightning-fabric")
_CURVES = (
    (
        "Training loss",
        ("train_loss", "loss"),
        "Faint lines are single repetitions, the strong one their mean.",
    ),
    (
        "Validation",
        ("valid_accuracy", "valid_auc", "valid", "valid_f1_macro"),
        "What early stopping sees; the weights of the best epoch are kept.",
    ),
    ("Validation log loss", ("valid_logloss",), "Rising while the training loss falls is over-fitting."),
)
_AXES = {
    "train_loss": "training loss",
    "loss": "training loss",
    "valid": "validation accuracy",
    "valid_accuracy": "validation accuracy",
    "valid_auc": "validation AUC",
    "valid_f1_macro": "validation macro F1",
    "valid_logloss": "validation log loss",
}
RESULTS_FILE, FIGURES = "results.csv", "figures"


def write_figure(folder: Path, name: str, figure: Figure) -> str:
    """As PNG and SVG; returns the SVG."""
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=150, facecolor="white")
    text = svg_text(figure, name)
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return text


def finish_folder(folder: Path, run: RecipeRun, facts: Mapping[str, Any]) -> None:
    """Write all that is made from the repetitions.

    Args:
        folder: The run's, still ``NAME.partial``.
        run: What was run.
        facts: ``task``; ``data``, in words and as a fingerprint; ``seconds``.
    """
    from graphrec import __version__

    records = [{k: v for k, v in one.row().items() if k != "seconds"} for one in run.repetitions]
    metrics = {"metric": run.metric, "summary": run.summary, "repetitions": records}
    runs.write_json(folder / runs.METRICS_FILE, metrics)
    write_table(folder / RESULTS_FILE, run.repetitions)
    origin = {
        "created": time.strftime("%Y-%m-%d %H:%M %Z"),
        "seconds": round(facts["seconds"], 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    info = {"format_version": runs.FORMAT_VERSION, "graphrec": __version__, "kind": "recipe"}
    runs.write_json(folder / runs.RUN_FILE, {**info, **facts["data"], "origin": origin})
    (folder / FIGURES).mkdir(exist_ok=True)
    page = RunPage(
        title=run.recipe.title,
        task=facts["task"].about,
        metric=run.metric,
        summary=run.summary,
        costs=_costs(run.repetitions),
        rows=[one.row() for one in run.repetitions],
        about=run.recipe.about,
        paper=run.recipe.paper,
        published={k: v for k, v in run.recipe.published.items() if k in run.summary},
        spread=_spread(folder, run),
        curves=_curves(folder, run.repetitions),
        pictures=_pictures(folder, run, facts["task"].figures),
        data={k: v for k, v in {**facts["data"], "origin": run.recipe.data["origin"]}.items() if v},
        recipe=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        command=f"graphrec run {shlex.quote(str(run.folder / 'recipe.yaml'))} --out again",
        origin=origin,
        created=origin["created"],
        seconds=facts["seconds"],
    )
    write_run_page(folder / runs.REPORT_FILE, page)


def _costs(repetitions: list[Repetition]) -> dict[str, dict[str, float]]:
    """Mean of every number among the facts, of epochs and of seconds, by variant."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in repetitions:
        rows.setdefault(one.variant, []).append({**one.facts, "epochs": one.epochs, "seconds": one.seconds})
    return {
        variant: {
            key: sum(row[key] for row in listed) / len(listed)
            for key in listed[0]
            if all(isinstance(row.get(key), int | float) for row in listed)
        }
        for variant, listed in rows.items()
    }


def _spread(folder: Path, run: RecipeRun) -> Picture | None:
    values = {
        name: [
            v
            for one in run.repetitions
            if one.variant == name and (v := one.metrics.get(run.metric)) is not None
        ]
        for name in run.summary
    }
    values = {name: listed for name, listed in values.items() if listed}
    if sum(map(len, values.values())) < 2:
        return None
    title = metric_title(run.metric)
    figure = plot_spread(values, title, run.recipe.published)
    svg = write_figure(folder / FIGURES, "spread", figure)
    reads = "A dot is a repetition, the line the mean, the bar a standard deviation to either side."
    reads += " A diamond is the published figure." if set(run.recipe.published) & set(values) else ""
    return Picture(f"{title} by repetition", inline_svg(svg, f"{title}. {reads}"), reads, wide=True)


def _curves(folder: Path, repetitions: list[Repetition]) -> list[Picture]:
    found = []
    for title, columns, reads in _CURVES:
        curves = _lines(repetitions, columns)
        if not any(len(x) > 1 for lines in curves.values() for x, _ in lines):
            continue
        name = title.lower().replace(" ", "-")
        figure = plot_curves(curves, _axis(repetitions, columns))
        svg = write_figure(folder / FIGURES, name, figure)
        more = len(curves) - MOST_LINES
        text = reads + (f" The first {MOST_LINES} are shown, {more} are left out." if more > 0 else "")
        found.append(Picture(title, inline_svg(svg, f"{title} by epoch. {text}"), text))
    return found


def _axis(repetitions: list[Repetition], columns: tuple[str, ...]) -> str:
    """What the histories' first column is, in words; two if the repetitions were judged by two."""
    found = [_column(one, columns) for one in repetitions]
    return " or ".join(dict.fromkeys(_AXES[column] for column in found if column is not None))


def _column(one: Repetition, columns: tuple[str, ...]) -> str | None:
    """The first of these columns that a history has."""
    return next((c for c in columns if any(row.get(c) is not None for row in one.history)), None)


def _lines(repetitions: list[Repetition], columns: tuple[str, ...]) -> dict[str, list[tuple[list, list]]]:
    """Curves of the first of some columns that a history has, by variant and stage."""
    curves: dict[str, list[tuple[list, list]]] = {}
    for one in repetitions:
        column = _column(one, columns)
        if column is None:
            continue
        several = len({row.get("stage") for row in one.history}) > 1
        stages: dict[str, tuple[list, list]] = {}
        for row in one.history:
            if row.get(column) is not None:
                name = one.variant + (f" ({row['stage']})" if several else "")
                x, y = stages.setdefault(name, ([], []))
                # A second stage without a name begins at epoch 1 again: count on.
                x.append(row["epoch"] if not x or row["epoch"] > x[-1] else x[-1] + 1)
                y.append(row[column])
        for name, line in stages.items():
            curves.setdefault(name, []).append(line)
    return curves


def _pictures(folder: Path, run: RecipeRun, captions: Mapping[str, str]) -> list[Picture]:
    """The task's own pictures, read from the repetitions that drew them, and copied beside the others."""
    found = []
    for one in run.repetitions:
        own = folder / "repetitions" / one.place.folder / "figures"
        for file in sorted(own.glob("*.svg")):
            text, name = file.read_text(encoding="utf-8"), f"{one.variant}-{file.stem}"
            (folder / FIGURES / f"{name}.svg").write_text(text, encoding="utf-8")
            (folder / FIGURES / f"{name}.png").write_bytes(file.with_suffix(".png").read_bytes())
            reads = captions.get(file.stem, "")
            title = f"{file.stem.replace('_', ' ').capitalize()}: {one.variant}"
            svg = inline_svg(text, f"{title}. {reads}")
            found.append(Picture(title, svg, reads, wide=svg_shape(text) > 1.5))
    return found
