"""Count the multiplications of attention by what it means: two products per visible pair and channel.

What a backend multiplies depends on how it cuts the work into groups or tiles, and a counter of torch's
operators sees nothing of a Triton kernel. Papers count visible pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .patterns import Full, Pattern

if TYPE_CHECKING:
    from .attention.source import Source

_AT_ONCE = 1 << 23
"""Pairs that are looked at together."""


@dataclass
class Tally:
    """Multiplications, each with its addition, of the attention that was asked for."""

    multiplications: int = 0

    def attention(self, q: Tensor, sources: Sequence[Source]) -> tuple[Tensor, Tensor]:
        """Count attention to all sources instead of computing it.

        Returns:
            Zeros in the place of output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq).
        """
        batch, heads, length, dim = q.shape
        for one in sources:
            pattern = one.pattern or Full()
            pairs = visible_pairs(pattern, length, one.k.shape[2])
            pairs *= (batch // pattern.batch) * (heads // pattern.heads)
            products = dim + one.v.shape[-1] * (1 if one.plus is None else 2)
            self.multiplications += pairs * products
        return q.new_zeros(batch, heads, length, sources[0].v.shape[-1]), q.new_zeros(batch, heads, length)


_TALLY: ContextVar[Tally | None] = ContextVar("tally", default=None)


def active_tally() -> Tally | None:
    """What counts at the moment, or None."""
    return None if torch.compiler.is_compiling() else _TALLY.get()


def counting() -> bool:
    """Whether something counts; not to be asked while compiling."""
    return _TALLY.get() is not None


@contextmanager
def tallying() -> Iterator[Tally]:
    """Within it `attention` and `joint_attention` count and return zeros."""
    token = _TALLY.set(tally := Tally())
    try:
        yield tally
    finally:
        _TALLY.reset(token)


def visible_pairs(pattern: Pattern, q_len: int, k_len: int) -> int:
    """Pairs that a pattern shows, over the batch entries and heads that it tells apart."""
    if isinstance(pattern, Full):
        return q_len * k_len
    return _remembered(pattern, q_len, k_len) if pattern.static else _looked_at(pattern, q_len, k_len)


def _looked_at(pattern: Pattern, q_len: int, k_len: int) -> int:
    """The same by looking at every pair."""
    key = torch.arange(k_len)[None]
    batch, heads = (torch.arange(one) for one in (pattern.batch, pattern.heads))
    apart = len(batch) * len(heads)
    step = max(_AT_ONCE // max(apart * k_len, 1), 1)
    found = 0
    for start in range(0, q_len, step):
        query = torch.arange(start, min(start + step, q_len))[:, None]
        seen = pattern.visible(batch[:, None, None, None], heads[:, None, None], query, key, q_len, k_len)
        found += int(seen.expand(len(batch), len(heads), len(query), k_len).sum())
    return found


_remembered = lru_cache(maxsize=256)(_looked_at)
