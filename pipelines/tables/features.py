"""What an encoded table looks like to a model: the fields, their sizes, and a batch of them.

Symbols used across the package: B batch, F fields, C categorical fields, N numeric fields, L list length,
T labels (tasks), d embedding width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

NULL_ID = 0
"""Id of a null category; in lists it is the padding."""
UNSEEN_ID = 1
"""Id of a category that the encoder did not see while it was fitted, or saw too rarely."""
FIRST_ID = 2
"""Id of the most frequent category."""


class FieldKind(StrEnum):
    """How a field reaches the model."""

    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    SEQUENCE = "sequence"  # ordered list of categories, oldest first: a behaviour sequence
    MULTI = "multi"  # unordered list of categories, pooled into one vector


@dataclass(frozen=True)
class Field:
    """One encoded field.

    Args:
        name: Column (or derived column) that it comes from.
        kind: See `FieldKind`.
        size: Number of ids, all in ``[0, size)``; 0 for a numeric field. Ids 0 and 1 are null and unseen.
        length: Ids per row of a list field (padded with 0 on the right); 0 otherwise.
        pooling: ``"mean"``, ``"sum"`` or ``"max"`` over the real items of a ``multi`` field.
        vocabulary: Name of the field whose ids (and embedding rows) this one shares, such as the item of
            an item-history sequence; its own name when it shares none.
        quotient: For quotient-remainder compression, the number of remainders; 0 for one row per id.
            Id ``i`` is then embedded as the product of row ``i % quotient`` of one table and row
            ``i // quotient`` of a second (Shi et al., 2020, arXiv 1909.02107).
        knots: Of a numeric field that holds positions among knots, in ``[0, knots - 1]``, their number; 0 if
            it holds the scaled number itself.
        centre: The knot nearest the median of the training rows.
    """

    name: str
    kind: FieldKind
    size: int = 0
    length: int = 0
    pooling: str = "mean"
    vocabulary: str = ""
    quotient: int = 0
    knots: int = 0
    centre: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FieldKind(self.kind))
        object.__setattr__(self, "vocabulary", self.vocabulary or self.name)


@dataclass(frozen=True)
class FeatureSpec:
    """The fields of an encoded table in the order of `Features`, and its labels.

    Within each kind the order of `fields` is the order of the columns of the batch.
    """

    fields: tuple[Field, ...]
    labels: tuple[str, ...] = ("label",)

    @cached_property
    def categorical(self) -> tuple[Field, ...]:
        """Fields of `Features.categorical`, in column order."""
        return tuple(f for f in self.fields if f.kind is FieldKind.CATEGORICAL)

    @cached_property
    def numeric(self) -> tuple[Field, ...]:
        """Fields of `Features.numeric`, in column order."""
        return tuple(f for f in self.fields if f.kind is FieldKind.NUMERIC)

    @cached_property
    def lists(self) -> tuple[Field, ...]:
        """Sequence and multi fields, in the order of `Features.lists`."""
        return tuple(f for f in self.fields if f.kind in (FieldKind.SEQUENCE, FieldKind.MULTI))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` reads it back."""
        return {"fields": [dataclasses.asdict(f) for f in self.fields], "labels": list(self.labels)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureSpec:
        """The inverse of `to_dict`."""
        return cls(tuple(Field(**f) for f in data["fields"]), tuple(data["labels"]))


class Features(NamedTuple):
    """The inputs of a model for B rows. A NamedTuple, so torch treats it as a pytree.

    Attributes:
        categorical: (B, C) int32 ids.
        numeric: (B, N) float32; NaN marks a missing value.
        lists: One (B, L) int32 tensor per list field, padded with 0 on the right.
    """

    categorical: Tensor
    numeric: Tensor
    lists: tuple[Tensor, ...] = ()


class Batch(NamedTuple):
    """Features with what a loss and a metric need.

    Attributes:
        features: The inputs.
        labels: (B, T) float32 in {0, 1}; NaN where a label is missing for a row.
        weights: (B,) float32 sample weights, or None.
        groups: (B,) int64 group (user) ids for group AUC, or None.
    """

    features: Features
    labels: Tensor
    weights: Tensor | None = None
    groups: Tensor | None = None
