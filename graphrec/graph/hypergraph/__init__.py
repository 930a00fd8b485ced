"""Hypergraph networks and the perceptrons that learn from them. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier import HypergraphClassifier
    from .hgnn import HGNN, HNHN, HGNNPlus, HypergraphNetwork, UniGCN
    from .incidence import Incidence
    from .lighthgnn import (
        Distillation,
        LightStudent,
        Reliability,
        high_order_loss,
        hyperedge_reliability,
        soft_label_loss,
        topology_score,
    )
    from .pictures import reliability_figure
    from .protocols import production, transductive

_MODULES = {
    "classifier": ("HypergraphClassifier",),
    "hgnn": ("HGNN", "HNHN", "HGNNPlus", "HypergraphNetwork", "UniGCN"),
    "incidence": ("Incidence",),
    "lighthgnn": (
        "Distillation",
        "LightStudent",
        "Reliability",
        "high_order_loss",
        "hyperedge_reliability",
        "soft_label_loss",
        "topology_score",
    ),
    "pictures": ("reliability_figure",),
    "protocols": ("production", "transductive"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "HGNN",
    "HNHN",
    "Distillation",
    "HGNNPlus",
    "HypergraphClassifier",
    "HypergraphNetwork",
    "Incidence",
    "LightStudent",
    "Reliability",
    "UniGCN",
    "high_order_loss",
    "hyperedge_reliability",
    "production",
    "reliability_figure",
    "soft_label_loss",
    "topology_score",
    "transductive",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
