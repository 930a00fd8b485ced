"""Watching: what attention is called with while a model runs, for drawings and for debugging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from .source import Source


class Call(NamedTuple):
    """One call of :func:`attention` or :func:`joint_attention`.

    Attributes:
        q: (B, H, Lq, D).
        sources: Keys and values, with pattern, bias and weights each.
        scale: Factor on the products.
        sink: Logits of one more key with value zero, or None.
        gate: Factor on the output, or None.
    """

    q: Tensor
    sources: Sequence[Source]
    scale: float
    sink: Tensor | None
    gate: Tensor | None


WATCHERS: list[Callable[[Call], None]] = []
"""Called with every call, before it is computed."""


@contextmanager
def watched_attention(watcher: Callable[[Call], None]) -> Iterator[None]:
    """Have every attention inside the block shown to a function; compiled models show nothing."""
    WATCHERS.append(watcher)
    try:
        yield
    finally:
        WATCHERS.remove(watcher)
