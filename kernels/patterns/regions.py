"""Regions of a grid that see the regions chosen for them: routing between pieces of an image or a video."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Pattern, per_axis
from .grid import _coordinate, _groups
from .lists import _leading, unique_lists


@dataclass(frozen=True)
class Cells:
    """A grid cut into regions, numbered row by row; those at the far edge may be smaller.

    Args:
        shape: the grid, one to three axes, flattened row by row.
        region: positions per region and axis.

    Raises:
        ValueError: no grid, or a region larger than its axis.
    """

    shape: tuple[int, ...]
    region: tuple[int, ...] | Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(one) for one in self.shape))
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise ValueError(f"shape={self.shape} must have one to three axes of at least 1")
        object.__setattr__(self, "region", per_axis(self.region, len(self.shape), "region"))
        for size, region in zip(self.shape, self.region, strict=True):
            if not 1 <= region <= size:
                raise ValueError(f"region={region} must be 1 to {size} (its axis)")

    @property
    def length(self) -> int:
        """Positions in all."""
        return prod(self.shape)

    @property
    def counts(self) -> tuple[int, ...]:
        """Regions on each axis."""
        return tuple(ceil(size / region) for size, region in zip(self.shape, self.region, strict=True))

    @property
    def count(self) -> int:
        """Regions in all."""
        return prod(self.counts)

    def check(self, q_len: int, k_len: int) -> None:
        """Raise ValueError unless queries and keys both are this grid."""
        for name, length in (("queries", q_len), ("keys", k_len)):
            if length != self.length:
                raise ValueError(f"shape={self.shape} has {self.length} positions, there are {length} {name}")

    def coordinates(self, index: Tensor) -> Tensor:
        """Where positions lie, int64 (..., axes)."""
        return torch.stack([_coordinate(index, self.shape, axis) for axis in range(len(self.shape))], -1)

    def number(self, index: Tensor) -> Tensor:
        """The region that holds each position, int64 like ``index``."""
        total = torch.zeros_like(index)
        for axis, (count, region) in enumerate(zip(self.counts, self.region, strict=True)):
            total = total * count + _coordinate(index, self.shape, axis) // region
        return total

    def members(self) -> Tensor:
        """Positions of each region, int64 (count, m) padded with -1."""
        places = list(self.coordinates(torch.arange(self.length)).unbind(-1))
        return _groups([place // one for place, one in zip(places, self.region, strict=True)], places)


@dataclass(frozen=True, repr=False, eq=False)
class Regions(Pattern):
    """The grid is cut into regions; each region of queries, or each query, sees the regions marked for it.

    BiFormer (arXiv:2303.08810) chooses per region, VMoBA (arXiv:2506.23858) per query.

    Args:
        shape, region: see :class:`Cells`; queries and keys are this grid.
        map: bool (rows, regions), with heads, or batch and heads (each 1 or its number), in front; ``rows``
            is the number of regions, or that of queries.

    Raises:
        ValueError: a region larger than its axis, or a map of another form.
    """

    _per_axis: ClassVar[tuple[str, ...]] = ("region",)
    shape: tuple[int, ...]
    region: tuple[int, ...] | Any
    map: Tensor

    def __post_init__(self) -> None:
        cells = self.cells
        object.__setattr__(self, "shape", cells.shape)
        object.__setattr__(self, "region", cells.region)
        object.__setattr__(self, "map", _leading(self.map, "map", 2))
        rows, columns = self.map.shape[2:]
        fits = columns == cells.count and rows in (cells.count, cells.length)
        if self.map.dtype != torch.bool or not fits:
            raise ValueError(
                f"map must be bool (..., {cells.count} or {cells.length}, {cells.count}) for "
                f"shape={self.shape} and region={self.region}, got {self.map.dtype} of shape "
                f"{tuple(self.map.shape)}"
            )

    @property
    def cells(self) -> Cells:
        """The grid and its regions."""
        return Cells(self.shape, self.region)

    @property
    def batch(self) -> int:
        return self.map.shape[0]

    @property
    def heads(self) -> int:
        return self.map.shape[1]

    @property
    def _grid(self) -> tuple[int, ...]:
        return self.shape

    def check(self, q_len: int, k_len: int) -> None:
        self.cells.check(q_len, k_len)

    def _row(self, index: Tensor) -> Tensor:
        """The row of the map that speaks for each query."""
        return self.cells.number(index) if self.map.shape[2] == self.cells.count else index

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        chosen = self.map.to(q.device)
        of = b if self.batch > 1 else torch.zeros_like(b)
        return chosen[of, h % self.heads, self._row(q), self.cells.number(k)]

    def partition(self, length: int) -> Tensor | None:
        return self.cells.members()

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        seen = self.map.to(index.device)[:, :, self._row(index.clamp(min=0))]
        some = (seen & (index >= 0).unsqueeze(-1)).any(-2)  # [B', H', N, regions]
        ids = unique_lists(torch.where(some, torch.arange(some.shape[-1], device=index.device), -1))
        keys = self.cells.members().to(index.device)[ids.clamp(min=0)]
        return torch.where((ids >= 0).unsqueeze(-1), keys, -1).flatten(-2)

    def coordinates(self, length: int) -> Tensor:
        return self.cells.coordinates(torch.arange(length))

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(size - 1 for size in self.shape)

    def padding_sink(self) -> Tensor | None:
        """What the zeros of a padded grid weigh, for the ``sink`` of attention.

        Code that pads the grid with zeros to a multiple of the region, and does not mask them, gives every
        query as many zero keys with value zero as its regions lack: one more key with logit ``log(count)``.

        Returns:
            float64 (B', H', Lq), -inf where the regions are whole; None when all are.
        """
        if not any(side % one for side, one in zip(self.shape, self.region, strict=True)):
            return None
        lacking = prod(self.region) - (self.cells.members() >= 0).sum(1)
        zeros = (self.map.double() @ lacking.to(self.map.device, torch.float64)).log()
        return zeros[..., self._row(torch.arange(self.cells.length, device=zeros.device))]


__all__ = ["Regions"]
