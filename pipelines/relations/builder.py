"""Gathers texts and instances as a reader meets them, and makes a `RelationSet` of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain

import torch
from torch import Tensor

from graphrec.errors import DataError

from .container import PADDING, UNKNOWN, RelationSet

Span = tuple[int, int, int]
"""Entity, first token, and the token after the last."""


class Builder:
    """Texts that were met before, word for word, are kept once."""

    def __init__(self, name: str, num_entities: int) -> None:
        self.name, self.num_entities = name, num_entities
        self._texts: dict[Hashable, int] = {}
        self._columns: dict[str, list[Sequence[str]]] = {"word": [], "pos": [], "dep": []}
        self._heads: list[Sequence[int]] = []
        self._text_of: list[int] = []
        self._spans: list[tuple[int, int, int, int]] = []
        self._labels: list[str] = []

    def add_text(
        self,
        tokens: Sequence[str],
        pos: Sequence[str] | None = None,
        dep: Sequence[str] | None = None,
        head: Sequence[int] | None = None,
    ) -> int:
        """Number of the text; parts of speech, dependencies and heads are unknown without a parse."""
        blank = (UNKNOWN,) * len(tokens)
        pos, dep = pos or blank, dep or blank
        head = head if head is not None else (-1,) * len(tokens)
        key = (tuple(tokens), tuple(dep), tuple(head))
        if key not in self._texts:
            self._texts[key] = len(self._texts)
            for column, values in (("word", tokens), ("pos", pos), ("dep", dep)):
                self._columns[column].append(values)
            self._heads.append(head)
        return self._texts[key]

    def add_instance(self, text: int, spans: Sequence[Span], label: str) -> None:
        """An instance over a text."""
        self._spans += [(len(self._labels), *span) for span in spans]
        self._text_of.append(text)
        self._labels.append(label)

    def finish(self, classes: Sequence[str] | None = None) -> RelationSet:
        """The set.

        Args:
            classes: Text of the classes; None takes the labels that occur, in the order of the alphabet.

        Raises:
            DataError: There is no instance, or a label is not one of the classes.
        """
        if not self._labels:
            raise DataError(f"{self.name}: holds no instances")
        known = tuple(classes) if classes is not None else tuple(sorted(set(self._labels)))
        if isinstance(classes, str) or len(set(known)) < len(known):
            raise DataError(f"{self.name}: classes must be a list of different texts, found {classes!r}")
        code = {c: i for i, c in enumerate(known)}
        unknown = next((i for i, label in enumerate(self._labels) if label not in code), None)
        if unknown is not None:
            raise DataError(
                f"{self.name}: instance {unknown}: label {self._labels[unknown]!r} is not one of "
                f"{', '.join(known)}"
            )
        lengths = torch.tensor([0] + [len(h) for h in self._heads])
        coded = {c: _codes(parts) for c, parts in self._columns.items()}
        return RelationSet(
            coded["word"][0],
            coded["pos"][0],
            coded["dep"][0],
            torch.tensor(list(chain.from_iterable(self._heads)), dtype=torch.int64),
            lengths.cumsum(0),
            torch.tensor(self._text_of),
            torch.tensor(self._spans, dtype=torch.int64).reshape(-1, 4),
            torch.tensor([code[label] for label in self._labels]),
            coded["word"][1],
            coded["pos"][1],
            coded["dep"][1],
            known,
            self.num_entities,
            self.name,
        )


def _codes(parts: Sequence[Sequence[str]]) -> tuple[Tensor, tuple[str, ...]]:
    """Codes of all values in order of their first occurrence, after padding and unknown."""
    code = {PADDING: 0, UNKNOWN: 1}
    codes = [code.setdefault(v, len(code)) for v in chain.from_iterable(parts)]
    return torch.tensor(codes, dtype=torch.int64), tuple(code)
