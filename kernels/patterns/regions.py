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


@dataclass(frozen=True, repr=False, eq=False)
class Regions(Pattern):
    """The grid is cut into regions; each region of queries, or each query, sees the regions marked for it.

    Regions are numbered row by row; those at the far edge are smaller where ``region`` does not divide the
    grid. BiFormer (arXiv:2303.08810) chooses per region, VMoBA (arXiv:2506.23858) per query.

    Args:
        shape: the grid, one to three axes, flattened row by row; queries and keys are this grid.
        region: positions per region and axis.
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
        object.__setattr__(self, "shape", tuple(int(one) for one in self.shape))
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise ValueError(f"shape={self.shape} must have one to three axes of at least 1")
        object.__setattr__(self, "region", per_axis(self.region, len(self.shape), "region"))
        for size, region in zip(self.shape, self.region, strict=True):
            if not 1 <= region <= size:
                raise ValueError(f"region={region} must be 1 to {size} (its axis)")
        object.__setattr__(self, "map", _leading(self.map, "map", 2))
        rows, columns = self.map.shape[2:]
        fits = columns == self.count and rows in (self.count, prod(self.shape))
        if self.map.dtype != torch.bool or not fits:
            raise ValueError(
                f"map must be bool (..., {self.count} or {prod(self.shape)}, {self.count}) for "
                f"shape={self.shape} and region={self.region}, got {self.map.dtype} of shape "
                f"{tuple(self.map.shape)}"
            )

    @property
    def counts(self) -> tuple[int, ...]:
        """Regions on each axis."""
        return tuple(ceil(size / region) for size, region in zip(self.shape, self.region, strict=True))

    @property
    def count(self) -> int:
        """Regions in all."""
        return prod(self.counts)

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
        for name, length in (("queries", q_len), ("keys", k_len)):
            if length != prod(self.shape):
                raise ValueError(
                    f"shape={self.shape} of Regions has {prod(self.shape)} positions, "
                    f"there are {length} {name}"
                )

    def axis(self, index: Tensor, axis: int) -> Tensor:
        """One coordinate of flattened positions, int64 like ``index``."""
        return _coordinate(index, self.shape, axis)

    def region_of(self, index: Tensor) -> Tensor:
        """The number of the region that holds each position, int64 like ``index``."""
        total = torch.zeros_like(index)
        for axis, (count, region) in enumerate(zip(self.counts, self.region, strict=True)):
            total = total * count + self.axis(index, axis) // region
        return total

    def _row_of(self, index: Tensor) -> Tensor:
        """The row of the map that speaks for each query."""
        return self.region_of(index) if self.map.shape[2] == self.count else index

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        chosen = self.map.to(q.device)
        return chosen[b % self.batch, h % self.heads, self._row_of(q), self.region_of(k)]

    def partition(self, length: int) -> Tensor | None:
        index = torch.arange(length)
        places = [self.axis(index, axis) for axis in range(len(self.shape))]
        return _groups([place // one for place, one in zip(places, self.region, strict=True)], places)

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        seen = self.map.to(index.device)[:, :, self._row_of(index.clamp(min=0))]
        some = (seen & (index >= 0).unsqueeze(-1)).any(-2)  # [B', H', N, regions]
        ids = unique_lists(torch.where(some, torch.arange(self.count, device=index.device), -1))
        members = self.partition(k_len)
        assert members is not None
        keys = members.to(index.device)[ids.clamp(min=0)]
        return torch.where((ids >= 0).unsqueeze(-1), keys, -1).flatten(-2)

    def coordinates(self, length: int) -> Tensor:
        index = torch.arange(length)
        return torch.stack([self.axis(index, axis) for axis in range(len(self.shape))], -1)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(size - 1 for size in self.shape)

    def padding_sink(self) -> Tensor | None:
        """What the zeros of a padded grid weigh, for the ``sink`` of attention.

        Code that pads the grid with zeros to a multiple of the region, and does not mask them, gives every
        query as many zero keys with value zero as its regions lack: one more key with logit ``log(count)``.

        Returns:
            float32 (B', H', Lq), -inf where the regions are whole; None when all are.
        """
        places = self.partition(prod(self.shape))
        assert places is not None
        lacking = prod(self.region) - (places >= 0).sum(1)
        if not bool(lacking.any()):
            return None
        zeros = (self.map.float() @ lacking.to(self.map.device, torch.float32)).log()
        return zeros[..., self._row_of(torch.arange(prod(self.shape), device=zeros.device))]


__all__ = ["Regions"]
