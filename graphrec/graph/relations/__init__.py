"""Relation extraction: BioIE and its relatives on dependency trees, `RelationExtractor`.

Importing this loads no torch; the names below load when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import TextBatch, TextBatches, token_edges
    from .bioie import BioIE
    from .evaluating import relation_metrics
    from .extractor import RelationExtractor
    from .layers import DenseBlock, EdgeAttention, PackedLSTM, SentenceAttention
    from .pictures import attention_figure

_MODULES = {
    "batches": ("TextBatch", "TextBatches", "token_edges"),
    "bioie": ("BioIE",),
    "evaluating": ("relation_metrics",),
    "extractor": ("RelationExtractor",),
    "layers": ("DenseBlock", "EdgeAttention", "PackedLSTM", "SentenceAttention"),
    "pictures": ("attention_figure",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BioIE",
    "DenseBlock",
    "EdgeAttention",
    "PackedLSTM",
    "RelationExtractor",
    "SentenceAttention",
    "TextBatch",
    "TextBatches",
    "attention_figure",
    "relation_metrics",
    "token_edges",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
