"""Features that are mostly 0, such as bags of words, multiplied by what is not.

Cora has 18 words of 1,433 a paper: a layer's product with the others is nearly all of a training step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphrec.kernels import CSR, spmm
from graphrec.training.dropout import dropout

FEW = 0.05
"""Share of non-zeros below which the sparse product is the faster one; they break even at about a tenth."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A matrix (N, F) as compressed rows.

    Attributes:
        places: Rows are vertices, columns features.
        values: In that order, (K,).
    """

    places: CSR
    values: Tensor

    @classmethod
    def of(cls, x: Tensor) -> SparseRows:
        """From a dense matrix."""
        row, column = x.nonzero().T
        places, order = CSR.from_edges(column.int(), row.int(), *x.shape)
        return cls(places, x[row, column][order.long()])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, F)."""
        return self.places.rows, self.places.columns

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.values.device

    def __len__(self) -> int:
        return self.places.rows

    def __getitem__(self, rows: Tensor) -> SparseRows:
        """Some rows, by their indices (n,)."""
        count = self.places.degree[rows]
        ptr = torch.nn.functional.pad(count.cumsum(0, dtype=count.dtype), (1, 0))
        start = torch.repeat_interleave(self.places.ptr[rows] - ptr[:-1], count)
        at = (start + torch.arange(len(start), device=start.device, dtype=start.dtype)).long()
        return SparseRows(CSR(ptr, self.places.index[at], self.places.columns), self.values[at])


Features: TypeAlias = Tensor | SparseRows


def compact(x: Tensor) -> Features:
    """Sparse where there are few non-zeros, else as it is."""
    few = x.numel() > 0 and int(x.count_nonzero()) < FEW * x.numel()
    return SparseRows.of(x) if few else x


def project(layer: nn.Linear, x: Features) -> Tensor:
    """``layer(x)``, (N, F) to (N, D)."""
    if isinstance(x, Tensor):
        found: Tensor = layer(x)
        return found
    found = spmm(x.places, layer.weight.T, x.values)
    return found if layer.bias is None else found + layer.bias


def disturb(x: Features, noise: float) -> Features:
    """X (1 + N(0, 1)) noise; what is 0 stays so."""
    if isinstance(x, Tensor):
        return x * (1 + torch.randn_like(x)) * noise
    return SparseRows(x.places, x.values * (1 + torch.randn_like(x.values)) * noise)


def drop(x: Features, share: float, training: bool) -> Features:
    """Dropout; what is 0 needs no random number."""
    if isinstance(x, Tensor):
        return dropout(x, share, training)
    return replace(x, values=dropout(x.values, share, training))


def _flatten(x: SparseRows) -> tuple[list[Tensor], int]:
    back, order = x.places.transpose
    return [x.places.ptr, x.places.index, back.ptr, back.index, order, x.values], x.places.columns


def _unflatten(tensors: Iterable[Any], columns: Any) -> SparseRows:
    ptr, index, back_ptr, back_index, order, values = tensors
    back = CSR(back_ptr, back_index, len(ptr) - 1)
    return SparseRows(CSR(ptr, index, columns).with_transpose(back, order), values)


# A batch that holds sparse features moves to a device with them.
pytree.register_pytree_node(
    SparseRows, _flatten, _unflatten, serialized_type_name="graphrec.graph.rows.SparseRows"
)
