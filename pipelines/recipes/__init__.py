"""Recipes: what to train on which data, how often and with what settings, as YAML.

Importing this loads no torch. A recipe is read and checked here; `graphrec.running` carries it out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .folder import DataFolder
    from .reading import Summary, list_recipes, read_recipe, recipe_path
    from .schema import Recipe
    from .sources import SOURCES, Divided, TableSource
    from .splits import SPLITS
    from .vocabulary import Vocabulary

_MODULES = {
    "folder": ("DataFolder",),
    "reading": ("Summary", "list_recipes", "read_recipe", "recipe_path"),
    "schema": ("Recipe",),
    "sources": ("SOURCES", "Divided", "TableSource"),
    "splits": ("SPLITS",),
    "vocabulary": ("Vocabulary",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "SOURCES",
    "SPLITS",
    "DataFolder",
    "Divided",
    "Recipe",
    "Summary",
    "TableSource",
    "Vocabulary",
    "list_recipes",
    "read_recipe",
    "recipe_path",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
