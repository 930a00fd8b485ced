"""Hypergraphs: vertices, hyperedges and who is in which. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import from_edge_lists, from_graph
    from .container import Hypergraph
    from .npz import read_hypergraph_npz
    from .protocols import ProductionSplit, production_split, transductive_split
    from .tables import read_incidence

_MODULES = {
    "build": ("from_edge_lists", "from_graph"),
    "container": ("Hypergraph",),
    "npz": ("read_hypergraph_npz",),
    "protocols": ("ProductionSplit", "production_split", "transductive_split"),
    "tables": ("read_incidence",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Hypergraph",
    "ProductionSplit",
    "from_edge_lists",
    "from_graph",
    "production_split",
    "read_hypergraph_npz",
    "read_incidence",
    "transductive_split",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
