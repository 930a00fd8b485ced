"""Patterns over one axis: who sees whom in a sequence.

Query ``q`` stands at position ``q + offset`` among the keys: with a cache of past keys, ``offset = Lk - Lq``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from ..remembered import kept
from .base import Pattern, check_whole


@dataclass(frozen=True, repr=False)
class Full(Pattern):
    """Every query sees every key."""

    @property
    def interval(self) -> bool:
        return True

    @property
    def anchored(self) -> bool:
        return False

    def moved(self, offset: int) -> Full:
        return self

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=q.device).expand(
            torch.broadcast_shapes(q.shape, k.shape)
        )


@dataclass(frozen=True, repr=False)
class Causal(Pattern):
    """A query sees itself and what comes before it."""

    offset: int = 0

    def __post_init__(self) -> None:
        check_whole("offset", self.offset)

    @property
    def origin(self) -> int:
        return self.offset

    @property
    def anchored(self) -> bool:
        return False

    @property
    def interval(self) -> bool:
        return True

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return k <= q + self.offset

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        last = torch.arange(q_len) + self.offset + 1
        return torch.zeros_like(last), last.clamp(0, k_len)


@dataclass(frozen=True, repr=False)
class Window(Pattern):
    """A query sees ``left`` keys before and ``right`` after itself (Longformer, arXiv:2004.05150)."""

    left: int
    right: int
    offset: int = 0

    @property
    def origin(self) -> int:
        return self.offset

    @property
    def anchored(self) -> bool:
        return False

    def __post_init__(self) -> None:
        check_whole("left", self.left, 0)
        check_whole("right", self.right, 0)
        check_whole("offset", self.offset)

    @property
    def interval(self) -> bool:
        return True

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        distance = k - (q + self.offset)
        return (distance >= -self.left) & (distance <= self.right)

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        centre = torch.arange(q_len) + self.offset
        return (centre - self.left).clamp(0, k_len), (centre + self.right + 1).clamp(0, k_len)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return (max(self.left, self.right),)


@dataclass(frozen=True, repr=False)
class _First(Pattern):
    """Every query sees the first ``count`` keys."""

    count: int

    @property
    def interval(self) -> bool:
        return True

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return (k < self.count).expand(torch.broadcast_shapes(q.shape, k.shape))

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(q_len, dtype=torch.int64), torch.full((q_len,), min(self.count, k_len))


@dataclass(frozen=True, repr=False)
class Streaming(Pattern):
    """Causal, but only the first ``sinks`` keys and the ``recent`` last ones, the query's own included.

    StreamingLLM, arXiv:2309.17453.
    """

    sinks: int
    recent: int
    offset: int = 0

    @property
    def origin(self) -> int:
        return self.offset

    def __post_init__(self) -> None:
        check_whole("sinks", self.sinks, 0)
        check_whole("recent", self.recent, 1)
        check_whole("offset", self.offset)

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        here = q + self.offset
        return (k <= here) & ((k < self.sinks) | (k > here - self.recent))

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        low, high = Causal(self.offset).bounds(q_len, k_len)
        if self.sinks == 0:
            low = (torch.arange(q_len) + self.offset + 1 - self.recent).clamp(0, k_len)
        return low, high

    def cover(self) -> tuple[Pattern, ...]:
        return Window(self.recent - 1, 0, self.offset), Causal(self.offset) & _First(self.sinks)

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        """The sinks and the run that ends at the group's last query, when that is less than everything."""
        first = torch.where(index < 0, index.amax(1, keepdim=True), index).amin(1)
        steps = int((index.amax(1) - first).amax()) + self.recent
        if self.sinks + steps >= k_len:
            return None
        run = index.amax(1, keepdim=True) + self.offset - torch.arange(steps, device=index.device)
        run = torch.where((run >= self.sinks) & (run < k_len), run, -1)
        sinks = torch.arange(self.sinks, device=index.device).expand(len(index), -1)
        return torch.cat([sinks, run.flip(1)], 1)[None, None]


@dataclass(frozen=True, repr=False)
class Strided(Pattern):
    """A query sees keys at multiples of ``stride`` from itself (Sparse Transformer, arXiv:1904.10509)."""

    stride: int
    offset: int = 0

    @property
    def origin(self) -> int:
        return self.offset

    @property
    def anchored(self) -> bool:
        return False

    def __post_init__(self) -> None:
        check_whole("stride", self.stride, 1)
        check_whole("offset", self.offset)

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return (q + self.offset - k) % self.stride == 0

    def partition(self, length: int) -> Tensor | None:
        """One group per residue."""
        padded = torch.arange(-(-length // self.stride) * self.stride)
        return torch.where(padded < length, padded, -1).view(-1, self.stride).T.contiguous()


@dataclass(frozen=True, repr=False)
class Global(Pattern):
    """The first ``count`` tokens see everything and are seen by all; the rest sees nothing else."""

    count: int
    offset: int = 0

    def __post_init__(self) -> None:
        check_whole("count", self.count, 0)
        check_whole("offset", self.offset)

    @property
    def origin(self) -> int:
        return self.offset

    @property
    def interval(self) -> bool:
        return True

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return (q + self.offset < self.count) | (k < self.count)

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        low, here = torch.zeros(q_len, dtype=torch.int64), torch.arange(q_len) + self.offset
        return low, torch.where(here < self.count, k_len, min(self.count, k_len))


@lru_cache(maxsize=64)
@kept
def _segment_ids(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """The segment of every position, int64 (L,)."""
    counts = torch.tensor(lengths, dtype=torch.int64, device=device)
    return torch.repeat_interleave(torch.arange(len(lengths), device=device), counts)


@dataclass(frozen=True, repr=False)
class Segments(Pattern):
    """Sequences laid end to end, each of which sees only itself: a block-diagonal mask.

    ``causal_scales=True`` lets a segment also see the segments before it, as between the scales of a visual
    autoregressive model (VAR, arXiv:2404.02905). ``k_lengths`` are the keys' segment lengths, if they differ.
    """

    lengths: tuple[int, ...]
    k_lengths: tuple[int, ...] | None = None
    causal_scales: bool = False

    def __post_init__(self) -> None:
        for name in ("lengths", "k_lengths"):
            if (given := getattr(self, name)) is not None:
                listed = given.tolist() if isinstance(given, Tensor) else list(given)
                for one in listed:
                    check_whole(name, one)
                object.__setattr__(self, name, tuple(int(one) for one in listed))
        if len(self._keys) != len(self.lengths):
            raise ValueError(f"k_lengths has {len(self._keys)} segments, lengths has {len(self.lengths)}")
        if min((*self.lengths, *self._keys), default=0) < 0:
            raise ValueError("lengths of segments must not be negative")

    @property
    def _keys(self) -> tuple[int, ...]:
        return self.lengths if self.k_lengths is None else self.k_lengths

    @property
    def interval(self) -> bool:
        return True

    def check(self, q_len: int, k_len: int) -> None:
        for name, lengths, length in (("lengths", self.lengths, q_len), ("k_lengths", self._keys, k_len)):
            if sum(lengths) != length:
                raise ValueError(
                    f"{name} of Segments add up to {sum(lengths)}, the sequence has {length} positions"
                )

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        mine, theirs = _segment_ids(self.lengths, q.device)[q], _segment_ids(self._keys, k.device)[k]
        return theirs <= mine if self.causal_scales else theirs == mine

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        ends = torch.tensor([0, *accumulate(self._keys)])
        mine = _segment_ids(self.lengths, torch.device("cpu"))
        low = torch.zeros_like(mine) if self.causal_scales else ends[mine]
        return low, ends[mine + 1]

    def partition(self, length: int) -> Tensor | None:
        """Runs of at most 64 positions that end where a segment ends."""
        if length != sum(self.lengths):
            return None
        steps = min(64, max(self.lengths, default=1)) or 1
        ids = _segment_ids(self.lengths, torch.device("cpu"))
        start = torch.tensor([0, *accumulate(self.lengths)])[ids]
        place = torch.arange(length) - start
        runs = torch.unique_consecutive(ids * (length + 1) + place // steps, return_inverse=True)[1]
        groups = torch.full((int(runs[-1]) + 1 if length else 0, steps), -1)
        groups[runs, place % steps] = torch.arange(length)
        return groups


def Packed(offsets: Tensor | tuple[int, ...], k_offsets: Tensor | tuple[int, ...] | None = None) -> Segments:
    """Segments given by where each starts, and the end of the last: ``cu_seqlens`` of other libraries.

    Args:
        offsets: increasing, from 0 to Lq, one more than there are segments.
        k_offsets: the same for the keys, when they differ.
    """

    def lengths(given: Tensor | tuple[int, ...]) -> tuple[int, ...]:
        steps = given.tolist() if isinstance(given, Tensor) else list(given)
        if not steps or steps[0] != 0:
            raise ValueError(f"offsets must start with 0, got {steps[:3]}")
        return tuple(stop - start for start, stop in pairwise(steps))

    return Segments(lengths(offsets), None if k_offsets is None else lengths(k_offsets))
