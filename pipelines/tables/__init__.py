"""Tables: anything with rows to batches of ids and floats. Importing this loads neither torch nor polars."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder import TableEncoder
    from .features import Batch, Features, FeatureSpec, Field, FieldKind
    from .leakage import describe_leaks, find_leaks
    from .loader import BatchLoader
    from .opening import open_table
    from .schema import Column, Role, TableSchema
    from .shards import EncodedTable
    from .sources import Table
    from .splits import Split

_MODULES = {
    "encoder": ("TableEncoder",),
    "features": ("Batch", "FeatureSpec", "Features", "Field", "FieldKind"),
    "leakage": ("describe_leaks", "find_leaks"),
    "loader": ("BatchLoader",),
    "opening": ("open_table",),
    "schema": ("Column", "Role", "TableSchema"),
    "shards": ("EncodedTable",),
    "sources": ("Table",),
    "splits": ("Split",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Batch",
    "BatchLoader",
    "Column",
    "EncodedTable",
    "FeatureSpec",
    "Features",
    "Field",
    "FieldKind",
    "Role",
    "Split",
    "Table",
    "TableEncoder",
    "TableSchema",
    "describe_leaks",
    "find_leaks",
    "open_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
