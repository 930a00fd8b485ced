"""Progress on the terminal: a bar, or one line per evaluation where there is none."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_REFRESH = 0.1


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
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._next = 0.0

    def __enter__(self) -> Display:
        if self.shown and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            fields = (TextColumn("{task.fields[note]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, *fields, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", note="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def epoch(self, epoch: int, step: int, steps: int) -> None:
        """A new epoch begins (or goes on after ``step`` steps)."""
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
        if self.shown:
            self.console.print(format_row(row, self.epochs, self.monitor), highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """Say something once."""
        if self.shown:
            self.console.print(text, highlight=False, soft_wrap=True)
