"""GSM and GSM++: graph sequence models; see `model`. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks import AttentionBlock, GlobalEncoder, Sequences
    from .clusters import Hierarchy, Level, affinity_clusters
    from .drawing import draw_cluster_tree
    from .mamba import MambaBlock
    from .model import GSMBackbone, GSMGraphModel, GSMNodeModel
    from .tokens import GroupTokens, MixedTokens, SequenceTokens

_MODULES = {
    "blocks": ("AttentionBlock", "GlobalEncoder", "Sequences"),
    "clusters": ("Hierarchy", "Level", "affinity_clusters"),
    "drawing": ("draw_cluster_tree",),
    "mamba": ("MambaBlock",),
    "model": ("GSMBackbone", "GSMGraphModel", "GSMNodeModel"),
    "tokens": ("GroupTokens", "MixedTokens", "SequenceTokens"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AttentionBlock",
    "GSMBackbone",
    "GSMGraphModel",
    "GSMNodeModel",
    "GlobalEncoder",
    "GroupTokens",
    "Hierarchy",
    "Level",
    "MambaBlock",
    "MixedTokens",
    "SequenceTokens",
    "Sequences",
    "affinity_clusters",
    "draw_cluster_tree",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
