"""The command line. This module and its commands import nothing heavy before a command runs."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated

import typer

from . import compare, fit, info, run, stopping, use

app = typer.Typer(
    name="graphrec",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from graphrec import __version__

        typer.echo(f"graphrec {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Fit models from a table or from images, measure, explain and serve them; train by recipes.

    A first run, on the data set that ships with the package:

        graphrec demo

    On your own log:

        graphrec schema log.parquet --label click

        graphrec fit log.parquet --label click --model fcn --out runs/first

        graphrec predict runs/first tomorrow.parquet --out scores.parquet

    On images, in a folder per class or listed in a table:

        graphrec fit photos/ --task image --model swin_tiny

    Classifiers of graphs, nodes and hypergraphs, by recipes:

        graphrec run --list
    """


for _function in (
    fit.fit, use.predict, use.evaluate, use.explain, use.export, compare.compare,
    run.run,    info.models, info.schema, info.doctor, fit.demo,
):  # fmt: skip
    app.command()(_function)


def main() -> None:
    """Entry point of the console script ``graphrec``."""
    # Before torch is loaded. Its idle threads would otherwise spin: on a machine whose cores have other work
    # too, an epoch of the demo then takes 90 seconds instead of 1.5.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Python's last search for cycles goes through all that torch and its libraries made, for seconds.
    atexit.register(gc.freeze)
    stopping.listen()
    try:
        app()
    except KeyboardInterrupt as error:  # while the commands are made
        sys.exit(stopping.status_of(error))
