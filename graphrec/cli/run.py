"""The command that carries out recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .common import Debug, command, console, fail, merge_settings, names, stopped

if TYPE_CHECKING:
    from graphrec.running import RecipeRun


@command
def run(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a shipped recipe, or a YAML file.", metavar="RECIPE")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Run folder to make (default runs/RECIPE).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Folder with the data sets (default that of GRAPHREC_DATA, or this one)."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="How many seeds (5), or which (3,7), on every split.")
    ] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Variants to run, separated by commas; all for all.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value: any key of the recipe, in dots; repeatable.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished run; finished repetitions are kept.")
    ] = False,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    list_: Annotated[bool, typer.Option("--list", help="List the shipped recipes.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe with all defaults and changes; run nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train by a recipe: every variant on every split with every seed, into a folder with a report.

    Examples:

        graphrec run --list

        graphrec run motifs --seeds 2 --out runs/motifs

        graphrec run histograph-mutag --data datasets --only histograph,gin --set training.epochs=50

        graphrec run my_recipe.yaml --out runs/mine --resume

        graphrec run histograph-mutag --show > my_recipe.yaml
    """
    if list_:
        _print_list()
        return
    if recipe is None:
        fail("RECIPE: name a recipe or a YAML file; `graphrec run --list` lists those that ship")
        return
    changes = merge_settings({"repeat.seeds": None if seeds is None else _seeds(seeds)}, settings)
    if show:
        _print_recipe(recipe, changes)
        return
    from graphrec.running import run_recipe

    folder = Path(out) if out else Path("runs") / Path(recipe).stem
    try:
        found = run_recipe(
            recipe, folder, data=data, changes=changes, variants=names(only), resume=resume,
            overwrite=overwrite, show=not quiet,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        started = folder.with_name(f"{folder.name}.partial").exists()
        stopped(error, f"; the same command with --out {folder} --resume continues" if started else "")
        return
    _print_results(found)


def _seeds(text: str) -> Any:
    """``5`` is a number of seeds, ``3,7`` are two, ``3,`` is one."""
    listed = [part.strip() for part in text.split(",") if part.strip()]
    if not listed or not all(part.isdigit() for part in listed):
        fail(f"--seeds: expected a number such as 5, or seeds such as 3,7, found {text!r}")
    return [int(part) for part in listed] if "," in text else int(text)


def _print_list() -> None:
    from rich.table import Table

    from graphrec.pipelines.recipes import list_recipes

    table = Table(title="recipes", title_justify="left")
    for column in ("name", "task", "data", "title"):
        table.add_column(column, no_wrap=column == "name")
    for one in list_recipes():
        table.add_row(one.name, one.task.replace("_", " "), one.source, one.title)
    console().print(table)
    typer.echo("graphrec run NAME runs one; graphrec run NAME --show prints it")


def _print_recipe(recipe: str, changes: dict[str, Any]) -> None:
    import yaml

    from graphrec.pipelines.recipes import read_recipe
    from graphrec.running import check_recipe

    found = read_recipe(recipe, changes)
    check_recipe(found)
    typer.echo(yaml.safe_dump(found.to_dict(), sort_keys=False, allow_unicode=True, width=110), nl=False)


def _print_results(found: RecipeRun) -> None:
    from rich.table import Table

    table = Table(title=found.recipe.title, title_justify="left")
    table.add_column("variant")
    part, _, metric = found.metric.rpartition("/")
    columns = [
        name
        for name in next(iter(found.summary.values()))
        if name.startswith(f"{part}/") or name.rpartition("/")[2] == metric
    ]
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("n", justify="right")
    for variant, metrics in found.summary.items():
        cells = [_spread(metrics[name]) for name in columns]
        table.add_row(variant, *cells, str(metrics[found.metric]["n"]))
    console().print(table)
    typer.echo(f"run folder: {found.folder}")
    typer.echo(f"report: {found.folder / 'report.html'}")


def _spread(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    return f"{found['mean']:.4f}" + ("" if found["std"] is None else f" ± {found['std']:.4f}")
