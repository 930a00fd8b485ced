"""What all commands share: error handling, consoles and argument parsing. Imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from graphrec.errors import ConfigError, GraphrecError, MissingExtraError

from .stopping import status_of

USER_ERROR, BUG = 2, 1
"""Exit codes: the user's mistake and ours; `stopped` has those of signals."""

_F = TypeVar("_F", bound=Callable[..., Any])

Debug = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunPath = Annotated[str, typer.Argument(help="Run folder that `graphrec fit` wrote.", metavar="RUN")]
DataPath = Annotated[
    str, typer.Argument(help="Parquet, CSV or Arrow file, folder, glob or cloud URL.", metavar="PATH")
]


def command(function: _F) -> _F:
    """Turn a user's mistake into one line on stderr and exit code 2, and a signal to stop into 128 and its
    number.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with _short_warnings():
                return function(*args, **kwargs)
        except (GraphrecError, OSError) as error:
            if kwargs.get("debug") or isinstance(error, BrokenPipeError):  # `| head` has read enough
                raise
            fail(str(error))
        except KeyboardInterrupt as error:
            stopped(error)
        except Exception as error:
            if (
                kwargs.get("debug")
                or isinstance(error, typer.Exit)
                or type(error).__module__.startswith("typer")
            ):
                raise
            fail(f"internal error, {type(error).__name__}: {error}; --debug shows where", BUG)

    return wrapped  # type: ignore[return-value]


def fail(message: str, code: int = USER_ERROR) -> None:
    """Print one line on stderr and exit with ``code``."""
    typer.echo(f"graphrec: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def stopped(error: KeyboardInterrupt, hint: str = "") -> None:
    """Say that a command was stopped, once for all processes of a run, and exit as shells expect."""
    from graphrec.runs import is_main_process

    if is_main_process():
        typer.echo(f"graphrec: stopped{hint}", err=True)
    raise typer.Exit(status_of(error))


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Our own warnings as one line each on stderr; those of the libraries below only where they mean
    something.
    """

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            typer.echo(f"warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.showwarning = show
        yield


def console() -> Any:
    """A rich console on stdout that prints names as they are, whatever brackets and colons they hold; wide
    when it is not a terminal, so that tables are not cut.
    """
    from rich.console import Console

    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed by the caller
    width = None if terminal else 140
    return Console(width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def parse_settings(items: Sequence[str], option: str) -> dict[str, Any]:
    """``key=value`` pairs; values are read as YAML, so numbers, booleans and lists come out typed.

    Raises:
        ConfigError: A pair has no ``=``, its value is not YAML, or a key comes twice.
    """
    import yaml

    settings: dict[str, Any] = {}
    for item in items:
        key, found, value = item.partition("=")
        if not found or not key:
            raise ConfigError(f"{option}: expected key=value, found {item!r}")
        key = key.strip()
        if key in settings:
            raise ConfigError(f"{option}: {key} is given twice, the second time by {item!r}; keep one")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{option}: the value of {item!r} cannot be read ({error})") from error
    return settings


def merge_settings(given: Mapping[str, Any], items: Sequence[str] | None) -> dict[str, Any]:
    """What options give, by their names as arguments and without those that are None, and ``--set`` pairs.

    Raises:
        ConfigError: A pair cannot be read, or names what an option gives too.
    """
    changes = {key: value for key, value in given.items() if value is not None}
    settings = parse_settings(items or [], "--set")
    for key in settings:
        if key in changes:
            raise ConfigError(f"--set: {key} is given by an option too, as {changes[key]!r}; keep one")
    return changes | settings


def data_name(data: str) -> str:
    """What the default folder of a run calls its data: the file or folder without wildcards."""
    return Path(data.rstrip("/")).stem.strip("*?[]") or "run"


def names(text: str | Sequence[str] | None) -> list[str]:
    """Comma-separated or repeated names as a list."""
    parts = [text] if isinstance(text, str) else list(text or ())
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def fraction_or_path(text: str | None) -> float | str | None:
    """``"0.1"`` as a number, anything else as a path."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def need(module: str, extra: str, why: str) -> None:
    """Raise when an optional dependency is missing.

    Raises:
        MissingExtraError: ``module`` cannot be imported; the message names the extra that brings it.
    """
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{why} needs {module}: pip install 'graphrec[{extra}]'")


def number(value: Any) -> str:
    """A metric for a table: five decimals, a dash where it is undefined."""
    if value is None or value != value:
        return "-"
    return (
        f"{value:.5f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def metrics_table(metrics: Mapping[str, Mapping[str, Any]], title: str) -> Any:
    """A rich table: one row per metric, one column per split."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for split in metrics:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(key for values in metrics.values() for key in values):
        table.add_row(name, *(number(values.get(name)) for values in metrics.values()))
    return table
