"""Progress on the terminal: a bar, or one line per evaluation where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH = 0.1
_outer: ContextVar[Progress | None] = ContextVar("outer progress", default=None)


def _console() -> Console:
    """Standard error; names with brackets or colons in them are no markup."""
    return Console(stderr=True, markup=False, emoji=False)


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False)


@contextmanager
def shared_progress(console: Console | None = None) -> Iterator[Progress]:
    """One set of bars for many fits: within it every `Display` adds a bar of its epochs, and prints no lines.

    Yields:
        The bars, for a task of the caller's own; without a terminal they are not drawn.
    """
    console = console or _console()
    columns = (_text("{task.description}"), BarColumn(), MofNCompleteColumn())
    fields = (TimeRemainingColumn(), _text("{task.fields[note]}"))
    hidden = not console.is_terminal
    with Progress(*columns, *fields, console=console, transient=True, disable=hidden) as bars:
        token = _outer.set(bars)
        try:
            yield bars
        finally:
            _outer.reset(token)


def format_row(row: dict[str, Any], epochs: int, monitor: str) -> str:
    """One row of the history as a line."""
    shown = {f"valid_{name}" for name in ("auc", "logloss")} | {monitor}
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['train_loss']:.4f}"]
    for key, value in row.items():
        if key in shown and key != "train_loss":
            number = "undefined" if value is None else f"{value:.4f}"
            parts.append(f"{key.replace('valid_', 'valid ')} {number}")
    parts += [f"lr {row['lr']:.3g}", f"{row['seconds']:.1f} s", f"{row['rows_per_s']:,.0f} rows/s"]
    return "  ".join(parts) + ("  (best)" if row["best"] else "")


class Display:
    """Shows how training goes, on standard error.

    Args:
        shown: False for silence.
        epochs: For the titles.
        monitor: Key of the row that decides.
        console: For tests.
    """

    def __init__(self, shown: bool, epochs: int, monitor: str, console: Console | None = None) -> None:
        self.shown, self.epochs, self.monitor = shown, epochs, monitor
        self.console = console or _console()
        self._bar: Progress | None = None
        self._outer = _outer.get() if shown else None
        self._task: Any = None
        self._next = 0.0

    def __enter__(self) -> Display:
        if self._outer is not None:
            self._task = self._outer.add_task("  epochs", total=self.epochs, note="")
        elif self.shown and self.console.is_terminal:
            columns = (_text("{task.description}"), BarColumn(), MofNCompleteColumn())
            fields = (_text("{task.fields[note]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, *fields, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            self._outer.remove_task(self._task)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def epoch(self, epoch: int, step: int, steps: int) -> None:
        """A new epoch begins (or goes on after ``step`` steps)."""
        if self._outer is not None:
            self._outer.update(self._task, completed=epoch)
        if self._bar is not None:
            title = f"epoch {epoch + 1}/{self.epochs}"
            self._bar.update(self._task, description=title, total=steps, completed=step, note="")

    def step(self, step: int, loss: float, rows_per_s: float) -> None:
        """A step was made; cheap, since the bar moves ten times a second at most."""
        if self._bar is None or (now := time.perf_counter()) < self._next:
            return
        self._next = now + _REFRESH
        self._bar.update(self._task, completed=step, note=f"loss {loss:.4f}  {rows_per_s:,.0f} rows/s")

    def note(self, text: str) -> None:
        """Say beside the bar what happens."""
        if self._bar is not None:
            self._bar.update(self._task, note=text)

    def row(self, row: dict[str, Any]) -> None:
        """An evaluation was made."""
        if self._outer is not None:
            value = row.get(self.monitor)
            note = "" if value is None else f"{self.monitor.replace('valid_', 'valid ')} {value:.4f}"
            self._outer.update(self._task, note=note)
        elif self.shown:
            self.console.print(format_row(row, self.epochs, self.monitor), highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Say something once."""
        if self.shown and self._outer is None:
            self.console.print(text, highlight=False, soft_wrap=True)
