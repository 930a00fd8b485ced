"""The field vectors of a batch side by side, and linear maps of them that cost less than their width.

A numeric field's vector is its value times one learned vector v (or a second one, m, where the value is
missing), so a linear map W of it is the value times W v: W v is made once a step, and of the d inputs that
such a field has, each row multiplies two. With 13 numeric of 39 fields and d = 16 a first layer multiplies
442 inputs instead of 624.

Symbols: B batch, F fields of which N are numeric, d embedding width, D = F d, H outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ALIGNED = 16
"""Inputs are filled up with zeros to a multiple: products of 442 of them took about as long as of 624."""


@dataclass(frozen=True)
class NumericVectors:
    """Vectors of consecutive numeric fields, ``values * weight + missing * missing_weight``.

    Attributes:
        values: (B, N), 0 where a value is missing.
        missing: (B, N), 1 where a value is missing, else 0.
        weight: (N, d), a vector for each field.
        missing_weight: (N, d), what stands for a missing value.
    """

    values: Tensor
    missing: Tensor
    weight: Tensor
    missing_weight: Tensor

    @classmethod
    def of(cls, values: Tensor, weight: Tensor, missing_weight: Tensor) -> NumericVectors:
        """From values (B, N) in which NaN says missing."""
        missing = values.isnan()
        return cls(values.masked_fill(missing, 0.0), missing.to(weight.dtype), weight, missing_weight)

    def dense(self) -> Tensor:
        """The vectors, (B, N, d)."""
        known = self.values[..., None] * self.weight
        return torch.addcmul(known, self.missing[..., None], self.missing_weight)

    def mapped(self, weight: Tensor) -> Tensor:
        """The columns (H, 2N) that a layer's columns (H, N d) come to for `values` and `missing`."""
        columns = weight.unflatten(1, self.weight.shape)  # (H, N, d)
        return torch.cat([(columns * one).sum(-1) for one in (self.weight, self.missing_weight)], dim=1)


class FlatFields:
    """Field vectors of a batch in the order of their fields, (B, D) if they were laid side by side.

    Args:
        pieces: (B, n, d) tensors, and numeric fields by their factors.
        dim: Width d.
    """

    def __init__(self, pieces: Sequence[Tensor | NumericVectors], dim: int) -> None:
        numeric = sum(len(piece.weight) for piece in pieces if isinstance(piece, NumericVectors))
        fields = numeric + sum(piece.shape[1] for piece in pieces if isinstance(piece, Tensor))
        inputs = 2 * numeric + dim * (fields - numeric)
        self._padding = -inputs % _ALIGNED
        self.factored = inputs + self._padding < dim * fields
        if not self.factored:  # nothing to save
            pieces = [piece if isinstance(piece, Tensor) else piece.dense() for piece in pieces]
        self.pieces, self.dim = pieces, dim
        self._vectors: Tensor | None = None
        self._factors: Tensor | None = None

    @property
    def vectors(self) -> Tensor:
        """(B, F, d), made once."""
        if self._vectors is None:  # functools.cached_property locks, which torch.compile cannot follow
            vectors = [piece if isinstance(piece, Tensor) else piece.dense() for piece in self.pieces]
            self._vectors = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        return self._vectors

    def dense(self) -> Tensor:
        """(B, D)."""
        return self.vectors.flatten(1)

    def linear(self, layer: nn.Linear) -> Tensor:
        """``layer`` of `dense`, (B, H), without making it.

        Args:
            layer: D inputs, H outputs.
        """
        if not self.factored:
            return layer(self.dense())
        columns = [
            part if isinstance(piece, Tensor) else piece.mapped(part)
            for piece, part in zip(self.pieces, self._columns(layer.weight), strict=True)
        ]
        columns.append(layer.weight.new_zeros(layer.out_features, self._padding))
        return nn.functional.linear(self._inputs(), torch.cat(columns, dim=1), layer.bias)

    def _inputs(self) -> Tensor:
        """What each row multiplies, (B, inputs); made once."""
        if self._factors is None:
            inputs: list[Tensor] = []
            for piece in self.pieces:
                inputs += [piece.flatten(1)] if isinstance(piece, Tensor) else [piece.values, piece.missing]
            inputs.append(inputs[0].new_zeros(inputs[0].shape[0], self._padding))
            self._factors = torch.cat(inputs, dim=1)
        return self._factors

    def _columns(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The columns of a layer that belong to each piece."""
        fields = [p.shape[1] if isinstance(p, Tensor) else len(p.weight) for p in self.pieces]
        return weight.split([self.dim * n for n in fields], dim=1)


def dense(x: Tensor | FlatFields) -> Tensor:
    """(B, D) of either form."""
    return x if isinstance(x, Tensor) else x.dense()


def linear(layer: nn.Module, x: Tensor | FlatFields) -> Tensor:
    """``layer`` of either form, (B, H)."""
    if isinstance(x, FlatFields) and isinstance(layer, nn.Linear):
        return x.linear(layer)
    return layer(dense(x))
