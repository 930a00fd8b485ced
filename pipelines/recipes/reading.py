"""Recipes from files: those that ship with the package by name, others by path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError

from ..yaml_keys import repeated_key

if TYPE_CHECKING:
    from .schema import Recipe

SUFFIX = ".yaml"


@dataclass(frozen=True)
class Summary:
    """A shipped recipe, for lists.

    Attributes:
        name: By which `graphrec run` takes it.
        title: What it is.
        task: Its task.
        source: Where its data come from: a name of `SOURCES`.
    """

    name: str
    title: str
    task: str
    source: str


def shipped_folder() -> Path:
    """Where the shipped recipes lie."""
    return Path(str(resources.files("graphrec.pipelines.recipes")))


def list_recipes() -> list[Summary]:
    """The shipped recipes by name; those that begin with an underscore are parts of others."""
    paths = sorted(shipped_folder().glob(f"[!_]*{SUFFIX}"), key=lambda path: path.stem)
    return [_summary(path.stem, load(path)) for path in paths]


def _summary(name: str, values: Mapping[str, Any]) -> Summary:
    return Summary(name, values["title"], values["task"], values["data"]["source"])


def recipe_path(name: str | Path) -> Path:
    """The file of a recipe: a path, or the bare name of a shipped one.

    Raises:
        ConfigError: There is none; names the nearest.
    """
    path = Path(name)
    if path.is_file():
        return path
    inside = shipped_folder() / f"{name}{SUFFIX}"
    if path.name == str(name) and inside.is_file():
        return inside
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"{path}: there is no such recipe file")
    names = [one.stem for one in shipped_folder().glob(f"[!_]*{SUFFIX}")]
    close = difflib.get_close_matches(str(name), names, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ";"
    raise ConfigError(f"recipe: there is no {str(name)!r}{hint} `graphrec run --list` lists all")


def load(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a recipe file, with that of the recipe it extends beneath it.

    Raises:
        ConfigError: A file cannot be read, is no mapping, says a key twice, or extends itself.
    """
    import yaml

    if path.resolve() in above:
        raise ConfigError(f"{path}: extends: leads back to the same recipe")
    try:
        text = path.read_text(encoding="utf-8")
        values, repeated = yaml.safe_load(text), repeated_key(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]})") from None
    if repeated is not None:
        raise ConfigError(f"{path}: {repeated}; keep one")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: must be a mapping with title, task, data, split and model")
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: should be the name or path of a recipe, found {base!r}")
    beside = path.parent / base
    below = beside if beside.is_file() else recipe_path(base)
    return _merged(load(below, (*above, path.resolve())), values)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings, key by key at every depth; where both have a value, ``above`` wins."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_recipe(recipe: str | Path | Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: Name of a shipped one, path of a file, or the mapping itself.
        changes: Values by key in dots, which take the place of the recipe's.

    Raises:
        ConfigError: One line: the file, the key in dots, what was found and what would be right.
    """
    from .schema import Recipe, changed

    path = None if isinstance(recipe, Mapping) else recipe_path(recipe)
    values = dict(recipe) if isinstance(recipe, Mapping) else load(recipe_path(recipe))
    try:
        return Recipe.of(changed(values, changes or {}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if path is not None else str(error)) from None
