"""What the repetitions of a recipe gave: records on disk, means, the table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from graphrec import runs
from graphrec.errors import ConfigError, RunError
from graphrec.history_file import read_history, write_history
from graphrec.pipelines.recipes.complaints import near

RECORD_FILE = "repetition.json"
Summary = dict[str, dict[str, dict[str, float | int | None]]]
"""Variant -> metric, as ``"test/accuracy"`` -> mean, std and n."""


@dataclass(frozen=True)
class Place:
    """Which repetition: a variant on one of the splits with a seed."""

    variant: str
    seed: int
    split: int

    @property
    def folder(self) -> str:
        """Where it is kept, below the run's ``repetitions``."""
        return f"{self.variant}/seed-{self.seed}-split-{self.split}"


@dataclass(frozen=True)
class Repetition:
    """A finished repetition.

    Attributes:
        variant: Of the recipe.
        seed: Of everything random.
        split: Number of the split.
        divided: The split in words.
        metrics: ``"test/accuracy"`` -> value, None where it is undefined.
        facts: Further values of the task.
        epochs: Rows of the history.
        seconds: That it took.
        history: A row per epoch.
    """

    variant: str
    seed: int
    split: int
    divided: str
    metrics: dict[str, float | None]
    facts: dict[str, Any]
    epochs: int
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def place(self) -> Place:
        """Which one it is."""
        return Place(self.variant, self.seed, self.split)

    def write(self, folder: Path) -> None:
        """Into a folder that exists."""
        record = asdict(self)
        record.pop("history")
        write_history(folder / runs.HISTORY_FILE, self.history)
        runs.write_json(folder / RECORD_FILE, record)

    @classmethod
    def read(cls, folder: Path) -> Repetition:
        """What `write` wrote.

        Raises:
            RunError: A file is missing or damaged.
        """
        record = runs.read_json(folder / RECORD_FILE)
        file = folder / runs.HISTORY_FILE
        history = read_history(file, texts=True)
        try:
            found = cls(**record, history=history)
        except TypeError as error:
            raise RunError(f"{folder / RECORD_FILE}: is no record of a repetition ({error})") from error
        if len(history) != found.epochs:
            raise RunError(f"{file}: was cut short, it has {len(history)} of {found.epochs} rows")
        return found

    def row(self) -> dict[str, Any]:
        """A line of the table."""
        place = {"variant": self.variant, "seed": self.seed, "split": self.split}
        return {**place, **self.metrics, **self.facts, "epochs": self.epochs, "seconds": self.seconds}


def flat_metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """``{"test": {"accuracy": a}}`` as ``{"test/accuracy": a}``; not-a-number is None."""
    return {
        f"{part}/{name}": None if value is None or math.isnan(value) else float(value)
        for part, values in metrics.items()
        for name, value in values.items()
    }


def summarise(repetitions: Iterable[Repetition]) -> Summary:
    """Mean and standard deviation (n - 1) of every metric of every variant, over its repetitions."""
    values: dict[str, dict[str, list[float]]] = {}
    for one in repetitions:
        for name, value in one.metrics.items():
            column = values.setdefault(one.variant, {}).setdefault(name, [])
            if value is not None:
                column.append(value)
    return {
        variant: {name: _spread(column) for name, column in columns.items()}
        for variant, columns in values.items()
    }


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    mean = statistics.fmean(values) if values else None
    return {"mean": mean, "std": statistics.stdev(values) if len(values) > 1 else None, "n": len(values)}


def main_metric(metric: str, known: Sequence[str]) -> str:
    """The full name of a recipe's metric: ``accuracy`` is that of the test part, if there is one.

    Raises:
        ConfigError: No part has it.
    """
    if metric in known:
        return metric
    found = [name for name in known if name.rpartition("/")[2] == metric]
    if not found:
        raise ConfigError(f"metric: no repetition has {metric!r}{near(metric, known)}")
    return next((name for name in found if name.startswith("test/")), found[-1])


def write_table(path: Path, repetitions: Sequence[Repetition]) -> None:
    """A line per repetition, as CSV."""
    write_history(path, [one.row() for one in repetitions])
