"""Everything that can be known to be wrong with a recipe before its data are read, or before it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphrec.errors import ConfigError
from graphrec.pipelines.recipes import SOURCES, Recipe
from graphrec.pipelines.recipes.complaints import near
from graphrec.pipelines.recipes.vocabulary import KINDS

from .tasks import Task, find_task

_CLASSES = (2, 6)
"""Of two classes some things are measured that are not of more, and the other way round."""


def check_recipe(recipe: Recipe, variants: Iterable[str] | None = None) -> Task:
    """Refuse a recipe whose task, pictures, model or settings cannot be right; returns its task.

    Args:
        recipe: As `read_recipe` gives it.
        variants: Those to check; all by default.

    Raises:
        ConfigError: Names the key and what would be right.
    """
    task = find_task(recipe.task)
    [kind] = SOURCES.find(recipe.data).kinds
    if kind != task.takes:
        raise ConfigError(
            f"data.source: {recipe.data['source']!r} gives {KINDS[kind]}, {task.name} takes "
            f"{KINDS[task.takes]}: {', '.join(SOURCES.of(task.takes))}"
        )
    for name in [] if recipe.figures == "all" else recipe.figures:
        if name not in task.figures:
            raise ConfigError(f"figures: {task.name} draws no {name!r}{near(name, task.figures)}")
    for name in recipe.names if variants is None else variants:
        try:
            check_monitor(task.make(recipe.variant(name), recipe.repeat.seed_list[0], False), task)
        except ConfigError as error:
            raise ConfigError(f"variants.{name}: {error}" if recipe.variants else str(error)) from None
    check_metric(recipe.metric, task)
    return task


def check_metric(metric: str, task: Task, data: Any = None) -> None:
    """Refuse a metric that no repetition can have.

    Args:
        metric: A recipe's, as ``accuracy`` or ``test/accuracy``.
        task: Its task.
        data: What the task takes, once it is there: how many classes it has decides.

    Raises:
        ConfigError: Names what the task measures.
    """
    if task.metrics is None:
        return
    part, name = metric.split("/")[0], metric.rpartition("/")[2]
    if "/" in metric and part not in task.parts:
        raise ConfigError(f"metric: {task.name} measures on no part {part!r}{near(part, task.parts)}")
    _refuse_unmeasured("metric", name, task.name, task.metrics, data)


def check_monitor(estimator: Any, task: Task, data: Any = None) -> None:
    """Refuse a metric to stop by that no validation part can have.

    Args:
        estimator: As the task makes it.
        task: Its name is told.
        data: See `check_metric`.

    Raises:
        ConfigError: Names what is measured after an epoch.
    """
    measured = getattr(estimator, "measured", task.metrics)
    options = getattr(estimator, "train_options", None) or {}
    monitor = options.get("monitor", getattr(estimator, "monitor", None))
    if monitor is not None and measured is not None:
        name = str(monitor).rpartition("/")[2]
        _refuse_unmeasured("training.monitor", name, f"validation in {task.name}", measured, data)


def _refuse_unmeasured(
    key: str, name: str, what: str, measured: Callable[[int], Sequence[str]], data: Any
) -> None:
    classes = len(getattr(data, "classes", ()))
    counts = (classes,) if classes > 1 else _CLASSES
    known = dict.fromkeys(one for count in counts for one in measured(count))
    if name not in known:
        of = f" of {classes} classes" if classes > 1 else ""
        raise ConfigError(f"{key}: {what}{of} measures no {name!r}{near(name, known)}")


def wanted_figures(recipe: Recipe, task: Task) -> frozenset[str]:
    """The pictures of the task that a recipe asks for."""
    return frozenset(task.figures if recipe.figures == "all" else recipe.figures)
