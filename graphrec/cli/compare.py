"""The command that fits several models on one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .common import (
    DataPath,
    Debug,
    command,
    console,
    data_name,
    metrics_table,
    names,
    number,
    parse_settings,
    stopped,
)

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.table import Table


@command
def compare(
    data: DataPath,
    label: o.Label = None,
    models: Annotated[
        str, typer.Option("--models", help="Names, separated by commas.")
    ] = "lr,dnn,dcnv2,autoint,fcn",
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder to make (default runs/DATA-compare).")
    ] = None,
    config: o.ConfigFile = None,
    schema: o.SchemaFile = None,
    valid: o.Valid = None,
    test: o.Test = None,
    split: o.SplitKind = "",
    weight: o.Weight = None,
    group: o.Group = None,
    time: o.Time = None,
    ignore: o.Ignore = None,
    role: o.RoleOption = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    patience: o.Patience = None,
    seed: o.Seed = None,
    device: o.Device = None,
    precision: o.Precision = None,
    compile: o.Compile = False,
    settings: o.Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted comparison: fit only what it lacks.")
    ] = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    debug: Debug = False,
) -> None:
    """Fit several models on the same rows and print one table, best first; each leaves its run folder.

    Example: graphrec compare log.parquet --label click --models fcn,autoint,dcnv2,lr --test 0.1

    --set MODEL.KEY=VALUE is for one model: --set autoint.num_heads=4 --set embedding_dim=32
    """
    given = dict(locals())
    from graphrec.estimators.comparing import compare_models
    from graphrec.runs import is_main_process

    speaks = is_main_process()
    of_file = o.read_config(config)
    arguments = o.data_arguments(of_file, {**given, "split": split or None})
    common, by_model = _settings_by_model(settings or [])
    estimator = o.make_estimator(of_file, o.training_settings({**given, "model": None}), common, config)
    folder = Path(out) if out else Path("runs") / f"{data_name(data)}-compare"
    try:
        table, _ = compare_models(
            estimator, names(models), data, run_dir=folder, resume=resume, overwrite=overwrite,
            announce=lambda name: typer.echo(f"{name} ...") if speaks else None, by_model=by_model,
            **arguments,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        started = folder.with_name(f"{folder.name}.partial").exists()
        stopped(error, "; the same command with --resume continues" if started else "")
    if not speaks:
        return
    _print(table, data)
    typer.echo(f"written to {folder}: comparison.csv, comparison.html, and a run folder for each model")


def _settings_by_model(items: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The pairs of ``--set`` for all models, and the settings of single ones by model."""
    single = [item for item in items if "." in item.partition("=")[0]]
    by_model: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings(single, "--set").items():
        model, _, name = key.partition(".")
        by_model.setdefault(model, {})[name] = value
    return [item for item in items if item not in single], by_model


def _print(table: pl.DataFrame, data: str) -> None:
    rows = table.to_dicts()
    columns = [name for name in table.columns if name not in ("model", "error")]
    fitted = {row["model"]: {name: row[name] for name in columns} for row in rows if not row.get("error")}
    out = console()
    shown = _by_model(fitted, columns, data)
    if _width(out, shown) > out.width:
        shown = metrics_table(fitted, data)
    out.print(shown)
    for row in rows:
        if row.get("error"):
            typer.echo(f"{row['model']} could not be fitted: {row['error']}")


def _by_model(fitted: dict[str, dict[str, Any]], columns: list[str], title: str) -> Table:
    """One row per model."""
    from rich.table import Table

    table = Table("model", title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "part" else "right")
    for model, values in fitted.items():
        table.add_row(model, *(number(values[name]) for name in columns))
    return table


def _width(out: Console, table: Table) -> int:
    """Columns of the terminal that a table takes when nothing in it is cut."""
    from rich.measure import Measurement

    return Measurement.get(out, out.options.update(max_width=10_000), table).minimum
