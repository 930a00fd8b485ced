"""Commands that use a finished run: predict, evaluate, explain, export."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from graphrec.errors import ConfigError
from graphrec.figures.names import one_line

from . import options as o
from .common import AsJson, DataPath, Debug, RunPath, command, console, metrics_table, names, number


@command
def predict(
    run: RunPath,
    data: DataPath,
    out: Annotated[str, typer.Option("--out", "-o", help="File to write: .parquet or .csv.")],
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Input column to copy beside the scores; repeatable; 'all' for all."),
    ] = None,
    image_column: o.ImageColumn = None,
    skip_broken: o.SkipBroken = False,
    overwrite: o.Overwrite = False,
    debug: Debug = False,
) -> None:
    """Write the probability of every row, in the order of the rows. Tables of any size; labels are not
    needed. Of a run on images: class and probabilities of every image of a folder or manifest.

    Examples:

        graphrec predict runs/first tomorrow.parquet --out scores.parquet --keep user_id --keep item_id

        graphrec predict runs/photos-swin_tiny new_photos/ --out classes.csv
    """
    from .images import is_image_run, predict_images, refuse_options

    if is_image_run(run):
        rows = predict_images(run, data, out, names(keep), image_column, overwrite, skip_broken)
        typer.echo(f"{rows:,} images classified: {out}")
        return
    refuse_options(image_column=image_column, skip_broken=skip_broken or None)
    from graphrec.estimators import CTRClassifier
    from graphrec.estimators.writing import write_scores

    rows = write_scores(CTRClassifier.load(run), data, out, keep=names(keep), overwrite=overwrite)
    typer.echo(f"{rows:,} rows scored: {out}")


@command
def evaluate(
    run: RunPath,
    data: DataPath,
    label: Annotated[
        str | None,
        typer.Option("--label", "-l", help="Column of labels; found otherwise.", rich_help_panel=o.IMAGES),
    ] = None,
    image_column: o.ImageColumn = None,
    weight: Annotated[
        str | None,
        typer.Option("--weight", help="Column of weights for the metrics.", rich_help_panel=o.IMAGES),
    ] = None,
    skip_broken: o.SkipBroken = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure a run on a table that has its label columns, or on labelled images.

    Examples:

        graphrec evaluate runs/first tomorrow.parquet --json

        graphrec evaluate runs/photos-swin_tiny labelled_photos/
    """
    from .images import evaluate_images, is_image_run, refuse_options

    if is_image_run(run):
        evaluate_images(run, data, as_json, skip_broken, label=label, image=image_column, weight=weight)
        return
    refuse_options(label=label, image_column=image_column, weight=weight, skip_broken=skip_broken or None)
    from graphrec.estimators import CTRClassifier

    metrics = CTRClassifier.load(run).evaluate(data)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        console().print(metrics_table({data: metrics}, f"{run}: metrics"))


@command
def explain(
    run: RunPath,
    data: DataPath,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for the CSV files and pictures.")],
    rows: Annotated[
        int | None, typer.Option(help="Look at so many rows at most.", min=1, show_default="20000")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="How often each field is shuffled.", min=1, show_default="3")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the sample and the shuffles.", show_default="0")
    ] = None,
    skip_broken: o.SkipBroken = False,
    overwrite: o.Overwrite = False,
    debug: Debug = False,
) -> None:
    """Which fields a model uses, and which pairs of fields it combines; as CSV, as pictures and as a table.

    Give rows that it was not fitted on. Of a run on images: what it looks at in eight from all over the data.

    Examples:

        graphrec explain runs/first tomorrow.parquet --out explained

        graphrec explain runs/photos-swin_tiny new_photos/ --out explained
    """
    from rich.table import Table

    from graphrec.estimators import CTRClassifier
    from graphrec.runs import atomic_folder

    from .images import explain_images, is_image_run, refuse_options

    given = {key: x for key, x in {"rows": rows, "repeats": repeats, "seed": seed}.items() if x is not None}
    if is_image_run(run):
        if given:
            raise ConfigError(f"--{next(iter(given))}: is for runs on tables; {run} is one on images")
        drawn = explain_images(run, data, out, overwrite, skip_broken)
        typer.echo(f"written to {out}: {', '.join(drawn)}")
        return
    refuse_options(skip_broken=skip_broken or None)
    with atomic_folder(out, overwrite=overwrite) as folder:
        found = CTRClassifier.load(run).explain(data, **given)
        files = found.write(folder)
    table = Table(
        "field", "AUC lost when shuffled", "std", title=f"{found.rows:,} rows, AUC {number(found.auc)}"
    )
    for row in found.importance.head(30).iter_rows(named=True):
        values = (row["auc_drop"], row["std"])
        table.add_row(one_line(row["field"]), *("-" if v is None else f"{v:.5f}" for v in values))
    console().print(table)
    for row in found.pairs.head(10).iter_rows(named=True):
        pair = f"{one_line(row['field'])} <- {one_line(row['other'])}"
        typer.echo(f"pair: {pair}  {row['strength']:.4g}")
    typer.echo(f"written to {out}: {', '.join(file.name for file in files)}")


@command
def export(
    run: RunPath,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder to make.")],
    format: Annotated[str, typer.Option("--format", "-f", help="onnx or torch.")] = "onnx",
    data: Annotated[
        str | None, typer.Option(help="Rows to check the export on; those it was fitted on by default.")
    ] = None,
    overwrite: o.Overwrite = False,
    debug: Debug = False,
) -> None:
    """Write the model with its encoder for a server, and check that it gives the same scores. Of a run on
    images: from uint8 pictures of its size to probabilities.

    Example: graphrec export runs/first --format onnx --out served
    """
    from .images import export_images, is_image_run

    if is_image_run(run):
        found = export_images(run, out, format, overwrite)
        worst = found["check"]["max_abs_difference"]
        text = (
            f"{out}/{found['file']}: largest difference {worst:.2g}; preprocess.yaml says how to cut pictures"
        )
        typer.echo(text)
        return
    from graphrec.estimators import CTRClassifier
    from graphrec.export import export_model

    facts = export_model(CTRClassifier.load(run), out, format=format, data=data, overwrite=overwrite)
    check = facts["check"]
    typer.echo(
        f"{out}/{facts['file']}: compared on {check['rows']} rows ({check['origin']}), largest difference "
        f"{check['max_abs_difference']:.2g}"
    )
    if format == "onnx":
        typer.echo(f"score raw rows: python -m graphrec.examples.score {out} rows.jsonl")
