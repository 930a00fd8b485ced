"""Patterns that count otherwise than from the first key: pooled keys, and sequences that start late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Pattern, check_whole, tensor_code


@dataclass(frozen=True, repr=False)
class PooledCausal(Pattern):
    """Causal over pooled keys: key ``k`` stands for positions ``pool * k`` to ``pool * (k + 1) - 1``.

    A query sees a pooled key once all of its positions are past or its own, so that no mean carries the
    future. ``PooledCausal(1)`` is ``Causal()``.

    Raises:
        ValueError: ``pool`` below 1.
    """

    pool: int
    offset: int = 0

    def __post_init__(self) -> None:
        check_whole("pool", self.pool, 1)
        check_whole("offset", self.offset)

    @property
    def interval(self) -> bool:
        return True

    @property
    def origin(self) -> int:
        return self.offset

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        return self.pool * (k + 1) <= q + self.offset + 1

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        seen = (torch.arange(q_len) + self.offset + 1) // self.pool
        return torch.zeros_like(seen), seen.clamp(0, k_len)


@dataclass(frozen=True, repr=False, eq=False)
class FromStart(Pattern):
    """A pattern whose positions count from where each batch entry starts: for prompts padded on the left.

    Keys before the start are hidden; queries before it see nothing of use and are not meant to be read.

    Args:
        pattern: over a sequence; it must be able to follow a cache, see :meth:`Pattern.moved`.
        start: the first real position of each batch entry, integer (B,).

    Raises:
        ValueError: a pattern that tells batch entries apart or does not count positions, or a ``start`` of
            another form.
    """

    pattern: Pattern
    start: Tensor

    def __post_init__(self) -> None:
        if self.pattern.batch > 1:
            raise ValueError(f"{self.pattern!r} tells batch entries apart already")
        self.pattern.moved(0)
        if self.start.dim() != 1 or self.start.is_floating_point() or self.start.dtype == torch.bool:
            raise ValueError(
                f"start must be integer (batch,), got {self.start.dtype} of shape {tuple(self.start.shape)}"
            )

    @property
    def batch(self) -> int:
        return self.start.shape[0]

    @property
    def heads(self) -> int:
        return self.pattern.heads

    @property
    def origin(self) -> int:
        return self.pattern.origin

    @property
    def anchored(self) -> bool:
        return self.pattern.anchored

    def moved(self, offset: int) -> Pattern:
        return FromStart(self.pattern.moved(offset), self.start)

    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.pattern.tensors(), self.start)

    def check(self, q_len: int, k_len: int) -> None:
        self.pattern.check(q_len, k_len)

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        first = self.start.to(q.device).long()[b % self.batch]
        return self.pattern.visible(b, h, q - first, k - first, q_len, k_len) & (k >= first)

    def code(self, names: Iterator[str] | None = None) -> str:
        return f"FromStart({self.pattern.code(names)}, {tensor_code(self.start, names)})"


__all__ = ["FromStart", "PooledCausal"]
