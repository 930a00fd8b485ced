"""Relations in text: tokens, dependency edges, entities and a label. Importing this loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chemprot import read_chemprot
    from .container import RelationBatch, RelationLoader, RelationSet
    from .nary import read_nary, read_nary_folds
    from .neighbour_vectors import neighbour_vectors
    from .opening import read_relations
    from .packed import PackedRelations, pack
    from .pieces import WordPieces, word_pieces
    from .pubtator import read_pubtator
    from .splits import join_parts, split_by_text
    from .stretches import shortest_stretches
    from .tokens import tokenise
    from .vectors import read_vectors

_MODULES = {
    "chemprot": ("read_chemprot",),
    "container": ("RelationBatch", "RelationLoader", "RelationSet"),
    "nary": ("read_nary", "read_nary_folds"),
    "neighbour_vectors": ("neighbour_vectors",),
    "opening": ("read_relations",),
    "packed": ("PackedRelations", "pack"),
    "pieces": ("WordPieces", "word_pieces"),
    "pubtator": ("read_pubtator",),
    "splits": ("join_parts", "split_by_text"),
    "stretches": ("shortest_stretches",),
    "tokens": ("tokenise",),
    "vectors": ("read_vectors",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "PackedRelations",
    "RelationBatch",
    "RelationLoader",
    "RelationSet",
    "WordPieces",
    "join_parts",
    "neighbour_vectors",
    "pack",
    "read_chemprot",
    "read_nary",
    "read_nary_folds",
    "read_pubtator",
    "read_relations",
    "read_vectors",
    "shortest_stretches",
    "split_by_text",
    "tokenise",
    "word_pieces",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
