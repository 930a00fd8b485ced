"""Which input positions a window meets along one axis: the only place that knows about borders.

Everything follows from one table per axis, output positions by taps: the reference indexes with it, torch
cuts it into runs of equal steps, the Triton kernels read it, and its inverse drives their backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..remembered import kept


class Run(NamedTuple):
    """Output positions ``out`` to ``out + length - 1`` that meet ``start``, ``start + step``, ..."""

    out: int
    start: int
    length: int
    step: int

    @property
    def outputs(self) -> slice:
        """The output positions."""
        return slice(self.out, self.out + self.length)

    @property
    def inputs(self) -> slice:
        """The input positions; one where all outputs meet the same."""
        if self.step == 0:
            return slice(self.start, self.start + 1)
        return slice(self.start, self.start + (self.length - 1) * self.step + 1, self.step)


@dataclass(frozen=True)
class Axis:
    """One axis of a sliding window.

    Attributes:
        length: input positions.
        count: output positions.
        kernel: taps.
        stride: input positions from one output to the next.
        dilation: input positions from one tap to the next.
        before: positions of the first window that lie before the input; for a zero border.
        border: "zero" reads 0 beyond the input; "shift" moves a window inwards until it fits, among the
            positions that share its remainder by the dilation.
    """

    length: int
    count: int
    kernel: int
    stride: int
    dilation: int
    before: int
    border: str

    def table(self, device: torch.device | str = "cpu") -> Tensor:
        """int64 (count, kernel): the input position of every tap, -1 beyond a zero border."""
        return _table(self, str(device))

    def runs(self, tap: int) -> tuple[Run, ...]:
        """The table's column of a tap, cut into runs."""
        return _runs(self)[tap]

    def inverse(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Who meets an input position: int32 outputs and taps, each (length, most), -1 to fill."""
        return _inverse(self, str(device))


@lru_cache(maxsize=256)
@kept
def _table(axis: Axis, device: str) -> Tensor:
    here = torch.arange(axis.count)
    taps = torch.arange(axis.kernel)
    if axis.border == "zero":
        start = (here * axis.stride - axis.before).unsqueeze(1)
        found = start + taps * axis.dilation
        return torch.where((found >= 0) & (found < axis.length), found, -1).to(device)
    rest = here % axis.dilation
    alike = (axis.length - rest + axis.dilation - 1) // axis.dilation  # positions with this remainder
    start = torch.minimum((here // axis.dilation - axis.kernel // 2).clamp(min=0), alike - axis.kernel)
    return (rest.unsqueeze(1) + (start.unsqueeze(1) + taps) * axis.dilation).to(device)


@lru_cache(maxsize=256)
def _runs(axis: Axis) -> tuple[tuple[Run, ...], ...]:
    return tuple(tuple(_cut(column)) for column in axis.table().T.tolist())


def _cut(column: list[int]) -> Iterator[Run]:
    """Runs of one tap, as long as they go."""
    out = 0
    while out < len(column):
        if column[out] < 0:
            out += 1
            continue
        end = out + 1
        step = column[end] - column[out] if end < len(column) and column[end] >= 0 else 1
        step = step if step >= 0 else 1
        while end < len(column) and column[end] == column[out] + (end - out) * step:
            end += 1
        yield Run(out, column[out], end - out, step)
        out = end


@lru_cache(maxsize=256)
@kept
def _inverse(axis: Axis, device: str) -> tuple[Tensor, Tensor]:
    met: list[list[tuple[int, int]]] = [[] for _ in range(axis.length)]
    for out, taps in enumerate(axis.table().tolist()):
        for tap, place in enumerate(taps):
            if place >= 0:
                met[place].append((out, tap))
    most = max(1, max(map(len, met), default=1))
    filled = [one + [(-1, -1)] * (most - len(one)) for one in met]
    both = torch.tensor(filled, dtype=torch.int32).view(axis.length, most, 2)
    return both[..., 0].contiguous().to(device), both[..., 1].contiguous().to(device)
