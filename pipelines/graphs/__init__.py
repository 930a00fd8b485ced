"""Graphs: from tables, files and other libraries to batches of tensors. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .container import GraphLoader, GraphSet
    from .dgl_graphs import from_dgl, to_dgl
    from .edges import AS_LISTED, SIMPLE, UNDIRECTED, EdgePolicy, clean_edges
    from .features import row_normalised, with_degree_features
    from .generated import colour_counting_graphs, connectivity_graphs
    from .masked_npz import read_masked_npz
    from .motifs import motif_graphs
    from .networkx_graphs import from_networkx, to_networkx
    from .planetoid import read_planetoid
    from .pyg_graphs import from_pyg
    from .restricted_pickle import load_arrays
    from .splits import add_split, node_split, read_folds
    from .tables import read_graph, read_graphs
    from .tu_folder import read_tu_folder
    from .tu_text import read_tu_text

_MODULES = {
    "container": ("GraphLoader", "GraphSet"),
    "dgl_graphs": ("from_dgl", "to_dgl"),
    "edges": ("AS_LISTED", "SIMPLE", "UNDIRECTED", "EdgePolicy", "clean_edges"),
    "features": ("row_normalised", "with_degree_features"),
    "generated": ("colour_counting_graphs", "connectivity_graphs"),
    "masked_npz": ("read_masked_npz",),
    "motifs": ("motif_graphs",),
    "networkx_graphs": ("from_networkx", "to_networkx"),
    "planetoid": ("read_planetoid",),
    "pyg_graphs": ("from_pyg",),
    "restricted_pickle": ("load_arrays",),
    "splits": ("add_split", "node_split", "read_folds"),
    "tables": ("read_graph", "read_graphs"),
    "tu_folder": ("read_tu_folder",),
    "tu_text": ("read_tu_text",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AS_LISTED",
    "SIMPLE",
    "UNDIRECTED",
    "EdgePolicy",
    "GraphLoader",
    "GraphSet",
    "add_split",
    "clean_edges",
    "colour_counting_graphs",
    "connectivity_graphs",
    "from_dgl",
    "from_networkx",
    "from_pyg",
    "load_arrays",
    "motif_graphs",
    "node_split",
    "read_folds",
    "read_graph",
    "read_graphs",
    "read_masked_npz",
    "read_planetoid",
    "read_tu_folder",
    "read_tu_text",
    "row_normalised",
    "to_dgl",
    "to_networkx",
    "with_degree_features",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
