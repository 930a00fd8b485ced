"""Gathering rows of (batch, heads, length, dim), with a backward that gathers too.

A gather of whole rows copies memory at full speed, and the gradient is a sum of rows per place, for which
``embedding_bag`` is some ten times faster on a CPU than scattered addition.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Uses = tuple[Tensor, Tensor]
"""Where each row was taken to: int64 start (L,) per row in a list of places, and that list."""


def uses_of(index: Tensor, length: int) -> Uses:
    """Where each of ``length`` rows stands in a flattened index; -1 stands for no row."""
    flat = index.flatten()
    real = flat >= 0
    counts = torch.bincount(flat[real], minlength=length)
    order = torch.argsort(torch.where(real, flat, length), stable=True)[: int(real.sum())]
    return counts.cumsum(0) - counts, order


def take_rows(x: Tensor, index: Tensor, uses: Uses | None) -> Tensor:
    """The same rows of ``x`` for all batch entries and heads.

    Args:
        x: (B, H, L, D).
        index: int64 (...), -1 for no row, which reads as row 0 and gives it no gradient.
        uses: what :func:`uses_of` finds for this index and length; None to find it in the backward.

    Returns:
        (B, H, ..., D).
    """
    start, order = uses if uses is not None else (None, None)
    taken: Tensor = _Take.apply(x, index, start, order)
    return taken


def take_each(x: Tensor, index: Tensor) -> Tensor:
    """Rows of ``x`` that differ among batch entries or heads.

    Args:
        x: (B, H, L, D).
        index: int64 (B or 1, H or 1, N, m), -1 for no row, which reads as row 0.

    Returns:
        (B, H, N, m, D).
    """
    batch, heads = x.shape[:2]
    start = torch.arange(batch, device=x.device).view(-1, 1, 1, 1) * heads
    start = (start + torch.arange(heads, device=x.device).view(1, -1, 1, 1)) * x.shape[2]
    rows = (start + index.clamp(min=0)).expand(batch, heads, *index.shape[2:])
    return x.reshape(-1, x.shape[-1]).index_select(0, rows.flatten()).view(*rows.shape, x.shape[-1])


def repeated(index: Tensor, times: int, step: int) -> Tensor:
    """An index into one head's rows, repeated for ``times`` heads that lie ``step`` rows apart."""
    return (torch.arange(times, device=index.device).unsqueeze(1) * step + index.reshape(1, -1)).flatten()


class _Take(torch.autograd.Function):
    """Rows by number, the same for all heads."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, start: Tensor | None, order: Tensor | None) -> Tensor:
        batch, heads, length, dim = x.shape
        rows = repeated(index.clamp(min=0), batch * heads, length)
        return x.reshape(-1, dim).index_select(0, rows).view(batch, heads, *index.shape, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, index, start, order = inputs
        ctx.length = x.shape[2]
        ctx.save_for_backward(index, start, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        index, start, order = ctx.saved_tensors
        if start is None:
            start, order = uses_of(index, ctx.length)
        batch, heads, dim = grad.shape[0], grad.shape[1], grad.shape[-1]
        rows = grad.reshape(-1, dim)
        places = repeated(order, batch * heads, index.numel())
        starts = repeated(start, batch * heads, order.shape[0])
        total = F.embedding_bag(places, rows, starts, mode="sum")
        return total.view(batch, heads, ctx.length, dim), None, None, None
