"""Patterns over a grid of one to three axes, flattened row by row: neighborhoods, windows, halos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .base import Folding, Pattern, per_axis
from .folds import members

Border = Literal["mask", "-100", "zero"]


def _coordinate(index: Tensor, shape: tuple[int, ...], axis: int) -> Tensor:
    """One coordinate of flattened positions."""
    return index // prod(shape[axis + 1 :]) % shape[axis]


def _joint(keys: list[Tensor]) -> Tensor:
    """One number per position that orders by the first key, then the second, and so on."""
    return reduce(lambda total, key: total * (int(key.max()) + 1) + key, [key - key.min() for key in keys])


def _groups(keys: list[Tensor], inner: list[Tensor]) -> Tensor:
    """Positions with equal keys as rows ordered by ``inner``, int64 (N, m) padded with -1."""
    length, ids = len(keys[0]), _joint(keys)
    order = torch.argsort(_joint([*keys, *inner]), stable=True)
    counts = torch.unique(ids, return_counts=True)[1]
    start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    rows = torch.full((len(counts), int(counts.max())), -1)
    rows[torch.repeat_interleave(torch.arange(len(counts)), counts), torch.arange(length) - start] = order
    return rows


@dataclass(frozen=True, repr=False)
class _Grid(Pattern):
    """What the grid patterns share: queries and keys are the same grid."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not hasattr(self.shape, "__iter__"):
            raise ValueError(f"shape={self.shape!r} must be a tuple of the grid's axes")
        object.__setattr__(self, "shape", tuple(int(one) for one in self.shape))
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise ValueError(f"shape={self.shape} must have one to three axes of at least 1")

    @property
    def _grid(self) -> tuple[int, ...]:
        return self.shape

    def _spread(self) -> None:
        for name in self._per_axis:
            object.__setattr__(self, name, per_axis(getattr(self, name), len(self.shape), name))

    def check(self, q_len: int, k_len: int) -> None:
        for name, length in (("queries", q_len), ("keys", k_len)):
            if length != prod(self.shape):
                raise ValueError(
                    f"shape={self.shape} of {type(self).__name__} has {prod(self.shape)} positions, "
                    f"there are {length} {name}"
                )

    def axis(self, index: Tensor, axis: int) -> Tensor:
        """One coordinate of flattened positions, int64 like ``index``."""
        return _coordinate(index, self.shape, axis)

    def _axes(self, length: int) -> list[Tensor]:
        index = torch.arange(length)
        return [self.axis(index, axis) for axis in range(len(self.shape))]

    def coordinates(self, length: int) -> Tensor:
        return torch.stack(self._axes(length), -1)

    def _rows(self, low: list[Tensor], high: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Flat bounds from the lowest and highest (included) coordinate seen on each axis."""
        steps = [prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        flat = [sum(one * step for one, step in zip(side, steps, strict=True)) for side in (low, high)]
        return torch.as_tensor(flat[0]), torch.as_tensor(flat[1]) + 1


@dataclass(frozen=True, repr=False)
class Neighborhood(_Grid):
    """Each query sees the ``kernel`` nearest keys per axis; at a border the window shifts, it does not
    shrink.

    The semantics of NATTEN (arXiv:2204.07143, 2209.15001, 2403.04690): ``dilation`` spaces the keys and
    splits an axis into that many interleaved grids, ``stride`` lets that many neighbouring queries share the
    window of their leader, ``causal`` hides what comes later on the axis. ``stride=kernel`` is window
    attention, ``kernel=shape`` is full attention.

    Raises:
        ValueError: ``kernel * dilation`` exceeds an axis, or ``stride`` exceeds ``kernel``.
    """

    _per_axis: ClassVar[tuple[str, ...]] = ("kernel", "dilation", "stride", "causal")
    kernel: tuple[int, ...] | Any
    dilation: tuple[int, ...] | Any = 1
    stride: tuple[int, ...] | Any = 1
    causal: tuple[bool, ...] | Any = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._spread()
        for size, kernel, dilation, stride in zip(
            self.shape, self.kernel, self.dilation, self.stride, strict=True
        ):
            if min(kernel, dilation, stride) < 1 or kernel * dilation > size:
                raise ValueError(
                    f"kernel={kernel} with dilation={dilation} must be at least 1 and fit an axis of {size}"
                )
            if stride > kernel:
                raise ValueError(f"stride={stride} must not exceed kernel={kernel}: keys would be skipped")

    def _span(self, place: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """First and last coordinate that a query at ``place`` sees on an axis."""
        kernel, dilation, stride = self.kernel[axis], self.dilation[axis], self.stride[axis]
        inner, phase = place // dilation, place % dilation
        size = (self.shape[axis] - phase + dilation - 1) // dilation
        if self.causal[axis]:
            leader = torch.minimum(inner // stride * stride + stride - 1, size - 1)
            first, last = (leader - kernel + 1).clamp(min=0), inner
        else:
            leader = torch.minimum(inner // stride * stride + stride // 2, size - 1)
            first = torch.minimum((leader - kernel // 2).clamp(min=0), size - kernel)
            last = first + kernel - 1
        return first * dilation + phase, last * dilation + phase

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = torch.ones((), dtype=torch.bool, device=q.device)
        for axis, dilation in enumerate(self.dilation):
            place, key = self.axis(q, axis), self.axis(k, axis)
            first, last = self._span(place, axis)
            seen = seen & (key >= first) & (key <= last)
            if dilation > 1:
                seen = seen & (key % dilation == place % dilation)
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        spans = [self._span(place, axis) for axis, place in enumerate(self._axes(q_len))]
        return self._rows([first for first, _ in spans], [last for _, last in spans])

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        reach = [
            (kernel + stride - 2) * dilation
            for kernel, stride, dilation in zip(self.kernel, self.stride, self.dilation, strict=True)
        ]
        return tuple(min(one, size - 1) for one, size in zip(reach, self.shape, strict=True))

    def _tile(self, axis: int) -> int:
        """Queries per axis that share their keys: fewest pairs, gathering a key costs about four."""
        size, kernel = -(-self.shape[axis] // self.dilation[axis]), self.kernel[axis]

        def cost(tile: int) -> int:
            return -(-size // tile) * (tile + 4) * min(size, tile + kernel - 1)

        return min(range(1, min(size, 16) + 1), key=cost)

    def partition(self, length: int) -> Tensor | None:
        axes, outer = self._axes(length), []
        for axis, place in enumerate(axes):
            dilation, tile = self.dilation[axis], self._tile(axis)
            outer += [place % dilation, place // dilation // tile]
        return _groups(outer, axes)


@dataclass(frozen=True, repr=False)
class Windows(_Grid):
    """The grid is cut into windows that see only themselves.

    ``order="local"`` cuts contiguous windows (Swin, arXiv:2103.14030), moved by ``shift``; ``order="grid"``
    puts into one window the positions that lie ``shape / window`` apart (MaxViT, arXiv:2204.01697). A stripe
    is a window as long as an axis (:func:`stripes`).

    ``border`` says what happens where a window meets the edge of the grid. ``"mask"``: it is cut there, and
    the piece beyond joins nothing. ``"-100"``: as in Swin, windows wrap around the grid, and pairs from
    opposite edges get -100 on their logit, so they are nearly but not quite invisible. ``"zero"``: the window
    keeps its size, and positions beyond the grid are zero keys that join the softmax with value zero.

    Raises:
        ValueError: a window larger than its axis, a shift not below the window, an order or border that does
        not
            exist, or a grid that the windows do not divide where ``order="grid"`` or ``border="-100"`` need
            it.
    """

    _per_axis: ClassVar[tuple[str, ...]] = ("window", "shift")
    window: tuple[int, ...] | Any
    shift: tuple[int, ...] | Any = 0
    order: Literal["local", "grid"] = "local"
    border: Border = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._spread()
        if self.order not in ("local", "grid") or self.border not in ("mask", "-100", "zero"):
            raise ValueError(
                f"order={self.order!r} must be 'local' or 'grid', "
                f"border={self.border!r} must be 'mask', '-100' or 'zero'"
            )
        for size, window, shift in zip(self.shape, self.window, self.shift, strict=True):
            if not 1 <= window <= size or not 0 <= shift < window:
                raise ValueError(f"window={window} must be 1 to {size} (its axis) and shift={shift} below it")
            if size % window and (self.order == "grid" or self.border == "-100"):
                raise ValueError(
                    f"window={window} must divide its axis of {size} "
                    f"for order={self.order!r}, border={self.border!r}"
                )
        if self.order == "grid" and (any(self.shift) or self.border != "mask"):
            raise ValueError("order='grid' has no shift and no border")

    def _split(self, index: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Which window a position is in, and where in it, on one axis."""
        place, window = self.axis(index, axis), self.window[axis]
        if self.order == "grid":
            step = self.shape[axis] // window
            return place % step, place // step
        moved = place - self.shift[axis]
        if self.border == "-100":
            moved = moved % self.shape[axis]
        return torch.div(moved, window, rounding_mode="floor"), moved % window

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = torch.ones((), dtype=torch.bool, device=q.device)
        for axis in range(len(self.shape)):
            seen = seen & (self._split(q, axis)[0] == self._split(k, axis)[0])
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        if self.order == "grid" or self.border == "-100":
            return super().bounds(q_len, k_len)
        ids = [self._split(torch.arange(q_len), axis)[0] for axis in range(len(self.shape))]
        low = [one * window + shift for one, window, shift in zip(ids, self.window, self.shift, strict=True)]
        high = [one + window - 1 for one, window in zip(low, self.window, strict=True)]
        return self._rows(
            [one.clamp(min=0) for one in low],
            [one.clamp(max=size - 1) for one, size in zip(high, self.shape, strict=True)],
        )

    def coordinates(self, length: int) -> Tensor:
        """The place in the grid; in the window where windows are dilated or wrap around."""
        wraps = self.border == "-100" and any(self.shift)
        return self._places(length) if self.order == "grid" or wraps else super().coordinates(length)

    def _places(self, length: int) -> Tensor:
        index = torch.arange(length)
        return torch.stack([self._split(index, axis)[1] for axis in range(len(self.shape))], -1)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(window - 1 for window in self.window)

    def partition(self, length: int) -> Tensor | None:
        folding = self.folding(length)
        if folding is not None:
            return members(folding)
        index, axes = torch.arange(length), range(len(self.shape))
        split = [self._split(index, axis) for axis in axes]
        ids = [one for one, _ in split]
        if (
            self.border == "mask"
            and all(size % window == 0 for size, window in zip(self.shape, self.window, strict=True))
            and self.order == "local"
        ):
            ids = [
                (self.axis(index, axis) - self.shift[axis]) % self.shape[axis] // self.window[axis]
                for axis in axes
            ]
        return _groups(ids, [place for _, place in split])

    def folding(self, length: int) -> Folding | None:
        """Windows that divide the grid; moved ones wrap around it, and a mask or penalty parts the pieces."""
        divide = all(size % window == 0 for size, window in zip(self.shape, self.window, strict=True))
        if not divide or (any(self.shift) and self.border == "zero"):
            return None
        roll = tuple(self.shift) if any(self.shift) else ()
        counts = [size // window for size, window in zip(self.shape, self.window, strict=True)]
        axes = range(len(counts))
        outer, inner = (2 * axis for axis in axes), (2 * axis + 1 for axis in axes)
        if self.order == "grid":
            pairs = zip(self.window, counts, strict=True)
            return tuple(one for pair in pairs for one in pair), (*inner, *outer), roll
        pairs = zip(counts, self.window, strict=True)
        return tuple(one for pair in pairs for one in pair), (*outer, *inner), roll

    @property
    def parted(self) -> bool:
        return any(self.shift) and self.border == "mask"

    def penalty(self, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor | None:
        if self.border != "-100" or not any(self.shift):
            return None
        apart = torch.zeros((), dtype=torch.bool, device=q.device)
        for axis, shift in enumerate(self.shift):
            apart = apart | ((self.axis(q, axis) < shift) != (self.axis(k, axis) < shift))
        return apart & self.visible(q, q, q, k, q_len, k_len)

    @property
    def penalty_value(self) -> float:
        return -100.0

    def phantoms(self, q_len: int) -> tuple[Tensor, Tensor] | None:
        if self.border != "zero":
            return None
        place = self._places(q_len)  # [L, axes]
        inside = torch.cartesian_prod(*(torch.arange(window) for window in self.window)).view(
            -1, len(self.window)
        )
        moved = torch.stack(self._axes(q_len), -1)[:, None] - place[:, None] + inside  # [L, P, axes]
        beyond = ((moved < 0) | (moved >= torch.tensor(self.shape))).any(-1)
        return (place[:, None] - inside, beyond) if bool(beyond.any()) else None


def stripes(shape: tuple[int, int], width: int, axis: int) -> Windows:
    """Stripes that run the whole length of ``axis`` (CSWin, arXiv:2107.00652); width 1 is axial attention."""
    if axis not in (0, 1):
        raise ValueError(f"axis={axis} must be 0 or 1")
    return Windows(shape, (shape[0], width) if axis == 0 else (width, shape[1]))


@dataclass(frozen=True, repr=False)
class Halo(_Grid):
    """A block of queries sees its own block and ``halo`` positions around it (HaloNet, arXiv:2103.12731).

    ``border="mask"`` cuts at the edge of the grid; ``border="zero"`` is HaloNet's: positions beyond the grid
    are zero keys that join the softmax with value zero.

    Raises:
        ValueError: a block larger than its axis, a negative halo or a border that does not exist.
    """

    _per_axis: ClassVar[tuple[str, ...]] = ("block", "halo")
    block: tuple[int, ...] | Any
    halo: tuple[int, ...] | Any
    border: Literal["mask", "zero"] = "mask"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._spread()
        if self.border not in ("mask", "zero"):
            raise ValueError(f"border={self.border!r} must be 'mask' or 'zero'")
        for size, block, halo in zip(self.shape, self.block, self.halo, strict=True):
            if not 1 <= block <= size or halo < 0:
                raise ValueError(f"block={block} must be 1 to {size} (its axis) and halo={halo} not negative")

    def _span(self, place: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        start = place // self.block[axis] * self.block[axis]
        return start - self.halo[axis], start + self.block[axis] + self.halo[axis] - 1

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = torch.ones((), dtype=torch.bool, device=q.device)
        for axis in range(len(self.shape)):
            first, last = self._span(self.axis(q, axis), axis)
            key = self.axis(k, axis)
            seen = seen & (key >= first) & (key <= last)
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        spans = [self._span(place, axis) for axis, place in enumerate(self._axes(q_len))]
        low = [first.clamp(min=0) for first, _ in spans]
        return self._rows(
            low, [last.clamp(max=size - 1) for (_, last), size in zip(spans, self.shape, strict=True)]
        )

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(block + halo - 1 for block, halo in zip(self.block, self.halo, strict=True))

    def partition(self, length: int) -> Tensor | None:
        axes = self._axes(length)
        return _groups([place // self._tile(axis) for axis, place in enumerate(axes)], axes)

    def _tile(self, axis: int) -> int:
        """Queries per axis that share their keys: whole blocks, several where they are small beside the halo.

        Fewest pairs, as for :class:`Neighborhood`, among numbers of blocks that divide the axis.
        """
        size, block, halo = self.shape[axis], self.block[axis], self.halo[axis]
        tiles = [many for many in range(block, max(block, 16) + 1, block) if size % many == 0]
        return min(tiles or [block], key=lambda tile: size // tile * (tile + 4) * min(size, tile + 2 * halo))

    def phantoms(self, q_len: int) -> tuple[Tensor, Tensor] | None:
        if self.border != "zero" or not any(self.halo):
            return None
        place = torch.stack(self._axes(q_len), -1)  # [L, axes]
        first = torch.stack([self._span(one, axis)[0] for axis, one in enumerate(self._axes(q_len))], -1)
        sides = [torch.arange(block + 2 * halo) for block, halo in zip(self.block, self.halo, strict=True)]
        keys = first[:, None] + torch.cartesian_prod(*sides).view(-1, len(self.shape))  # [L, P, axes]
        beyond = ((keys < 0) | (keys >= torch.tensor(self.shape))).any(-1)
        return place[:, None] - keys, beyond


__all__ = ["Halo", "Neighborhood", "Windows", "stripes"]
