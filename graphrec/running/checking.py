"""Everything that can be known to be wrong with a recipe before its data are read."""

from __future__ import annotations

from collections.abc import Iterable

from graphrec.errors import ConfigError
from graphrec.pipelines.recipes import SOURCES, Recipe
from graphrec.pipelines.recipes.complaints import near
from graphrec.pipelines.recipes.vocabulary import KINDS

from .tasks import Task, find_task


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
            task.make(recipe.variant(name), recipe.repeat.seed_list[0], False)
        except ConfigError as error:
            raise ConfigError(f"variants.{name}: {error}" if recipe.variants else str(error)) from None
    return task


def wanted_figures(recipe: Recipe, task: Task) -> frozenset[str]:
    """The pictures of the task that a recipe asks for."""
    return frozenset(task.figures if recipe.figures == "all" else recipe.figures)
