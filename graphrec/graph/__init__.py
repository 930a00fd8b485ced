"""Graph networks: message passing on the kernels, readouts, HISTOGRAPH, estimators.

Importing this loads no torch; the names below load when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones import Backbone
    from .batches import FullBatch, GraphBatch, GraphBatches
    from .classifier import GraphClassifier, NodeClassifier
    from .convolutions import GATConv, GatedGCNConv, GCNConv, GINConv, SAGEConv
    from .histograph import HistoGraph, record_history, safe_division
    from .models import GraphModel, NodeModel
    from .readouts import SortPooling, make_readout
    from .topology import Topology

_MODULES = {
    "backbones": ("Backbone",),
    "batches": ("FullBatch", "GraphBatch", "GraphBatches"),
    "classifier": ("GraphClassifier", "NodeClassifier"),
    "convolutions": ("GATConv", "GCNConv", "GINConv", "GatedGCNConv", "SAGEConv"),
    "histograph": ("HistoGraph", "record_history", "safe_division"),
    "models": ("GraphModel", "NodeModel"),
    "readouts": ("SortPooling", "make_readout"),
    "topology": ("Topology",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Backbone",
    "FullBatch",
    "GATConv",
    "GCNConv",
    "GINConv",
    "GatedGCNConv",
    "GraphBatch",
    "GraphBatches",
    "GraphClassifier",
    "GraphModel",
    "HistoGraph",
    "NodeClassifier",
    "NodeModel",
    "SAGEConv",
    "SortPooling",
    "Topology",
    "make_readout",
    "record_history",
    "safe_division",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
