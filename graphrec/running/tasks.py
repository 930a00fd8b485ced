"""What a recipe can ask for: a task is a function that trains once and says how well that went.

To add one, write a module with a function under `register_task` and name it in `TASKS`. The function gets a
`Job` and returns an `Outcome`; repetitions, resuming, tables, figures on disk and the report are not its
business.

    @register_task(takes="graphs", make=make_graph_classifier, metrics=measured_by(class_metrics))
    def graph_classification(job: Job) -> Outcome:
        model = job.make().fit(job.data, split=job.split)
        return Outcome(model.metrics_, model.history_, save=model.save)
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError
from graphrec.pipelines.recipes.complaints import near
from graphrec.pipelines.recipes.vocabulary import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from graphrec.pipelines.recipes import Recipe

TASKS = {
    "click_prediction": "graphrec.running.tables",
    "eeg_classification": "graphrec.running.eeg",
    "graph_classification": "graphrec.running.graphs",
    "hypergraph_classification": "graphrec.running.hypergraphs",
    "image_classification": "graphrec.running.images",
    "node_classification": "graphrec.running.graphs",
    "relation_extraction": "graphrec.running.relations",
}
"""Name of a task -> the module whose import registers it; nothing else is imported."""

PARTS = ("train", "valid", "test")
Maker = Callable[["Recipe", int, bool], Any]
"""From a recipe, a seed and whether to show progress to an estimator that is not fitted. It refuses whatever
is wrong with ``model`` and ``training``: it is called for every variant before any data is read."""


@dataclass(frozen=True)
class Job:
    """One repetition.

    Attributes:
        task: Its task.
        recipe: That of the variant; it has no variants of its own.
        data: What the source gave, such as a `GraphSet`; shared by all repetitions, so not to be changed.
        split: One of the splits that the split section gave, such as an `IndexSplit`.
        seed: Of everything random.
        draw: Names of the pictures to draw; of all but a variant's first repetition none.
        show: Whether progress is shown.
    """

    task: Task
    recipe: Recipe
    data: Any
    split: Any
    seed: int
    draw: frozenset[str] = frozenset()
    show: bool = False

    def make(self) -> Any:
        """The estimator, not fitted."""
        return self.task.make(self.recipe, self.seed, self.show)


@dataclass
class Outcome:
    """What a repetition gave.

    Attributes:
        metrics: By part of the data: ``{"valid": {"accuracy": ...}, "test": {...}}``; None for what is
            undefined.
        history: A row per epoch (with ``stage``, where there are several); drawn as learning curves.
        figures: Pictures by name; only those of ``job.draw`` are kept.
        facts: Further plain values for the table, such as ``parameters``.
        save: Writes the fitted model as a folder that does not exist yet.
    """

    metrics: Mapping[str, Mapping[str, float | None]]
    history: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    save: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Task:
    """A registered task.

    Attributes:
        name: In recipes; the function's.
        takes: The kind of data, a key of `graphrec.pipelines.recipes.vocabulary.KINDS`.
        make: See `Maker`.
        run: One repetition.
        figures: Pictures that it can draw -> the sentence below them.
        metrics: From a number of classes to the names of what it measures, without the part; None if that is
            not known before a repetition.
        parts: Of the data, for which it measures.
    """

    name: str
    takes: str
    make: Maker
    run: Callable[[Job], Outcome]
    figures: Mapping[str, str]
    metrics: Callable[[int], Sequence[str]] | None = None
    parts: tuple[str, ...] = PARTS

    @property
    def about(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.run) or "").split("\n")[0]


_registered: dict[str, Task] = {}


def measured_by(measure: Callable[..., Mapping[str, Any]]) -> Callable[[int], Sequence[str]]:
    """Names of what a function of labels (n,) and probabilities (n, C) measures, for a number of classes."""

    def names(classes: int) -> Sequence[str]:
        import numpy as np

        return list(measure(np.arange(classes), np.eye(classes)))

    return names


def register_task(
    *,
    takes: str,
    make: Maker,
    figures: Mapping[str, str] | None = None,
    metrics: Callable[[int], Sequence[str]] | None = None,
    parts: tuple[str, ...] = PARTS,
) -> Callable[[Callable[[Job], Outcome]], Callable[[Job], Outcome]]:
    """Decorator that makes a function a task under its own name; see `Task`."""

    def decorate(function: Callable[[Job], Outcome]) -> Callable[[Job], Outcome]:
        name = function.__name__
        if name in _registered or takes not in KINDS:
            raise ValueError(
                f"task {name!r} is registered twice, or takes {takes!r}, not one of {list(KINDS)}"
            )
        _registered[name] = Task(name, takes, make, function, dict(figures or {}), metrics, parts)
        return function

    return decorate


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    if name not in _registered:
        if name not in TASKS:
            raise ConfigError(f"task: there is no {name!r}{near(name, sorted({*TASKS, *_registered}))}")
        importlib.import_module(TASKS[name])
    return _registered[name]
