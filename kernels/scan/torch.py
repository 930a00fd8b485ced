"""Recurrences in chunks: all chunks step together, then carry from one chunk to the next.

A sequence of T takes some ``2 * sqrt(T)`` steps on whole tensors instead of T, unless it is short or its
steps are wide. The gradient is the same recurrence run backwards: with ``g`` the gradient of ``h``,
``db[t] = g[t] + a[t + 1] * db[t + 1]`` and ``da[t] = db[t] * h[t - 1]``.
"""

from __future__ import annotations

from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registering import operator

_SHORT = 16
"""Steps up to which chunks take as many calls as steps do."""
_WIDE = 1 << 12
"""Numbers of a step from which on they, and not its call, take the time; chunks go through them twice."""


def scan(a: Tensor, b: Tensor, initial: Tensor | None) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]`` along axis 1 of (B, T, ...)."""
    first = torch.zeros_like(b[:, 0]) if initial is None else initial
    flat = (*b.shape[:2], prod(b.shape[2:]))
    out: Tensor = recurrence(a.reshape(flat), b.reshape(flat), first.reshape(flat[0], flat[2]))
    return out.view(b.shape)


@operator("graphrec::scan")
def recurrence(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """The recurrence on (B, T, D), T at least 1, from a first state (B, D)."""
    length = a.shape[1]
    if length <= _SHORT or b[:, 0].numel() >= _WIDE:
        out, here = torch.empty_like(b, memory_format=torch.contiguous_format), first
        for t in range(length):
            here = torch.addcmul(b[:, t], a[:, t], here, out=out[:, t])
        return out
    step = isqrt(length - 1) + 1
    short = -length % step
    if short:
        a, b = F.pad(a, (0, 0, 0, short)), F.pad(b, (0, 0, 0, short))
    a, b = (one.unflatten(1, (-1, step)) for one in (a, b))  # [B, chunks, step, D]
    inner, decay = torch.empty_like(b), torch.empty_like(b)
    inner[:, :, 0], decay[:, :, 0] = b[:, :, 0], a[:, :, 0]
    for t in range(1, step):
        torch.addcmul(b[:, :, t], a[:, :, t], inner[:, :, t - 1], out=inner[:, :, t])
        torch.mul(decay[:, :, t - 1], a[:, :, t], out=decay[:, :, t])
    carry = torch.empty_like(b[:, :, 0])
    here = first
    for chunk in range(b.shape[1]):
        carry[:, chunk] = here
        here = torch.addcmul(inner[:, chunk, -1], decay[:, chunk, -1], here)
    return inner.addcmul_(decay, carry.unsqueeze(2)).flatten(1, 2)[:, :length].contiguous()


@recurrence.register_fake
def _(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    return torch.empty_like(b, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output, inputs[2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, out, first = ctx.saved_tensors
    later = F.pad(a[:, 1:], (0, 0, 0, 1)).flip(1)
    db = recurrence(later, grad.flip(1), torch.zeros_like(first)).flip(1)
    before = torch.cat([first.unsqueeze(1), out[:, :-1]], 1)
    return db * before, db, a[:, 0] * db[:, 0]


recurrence.register_autograd(_backward, setup_context=_setup)
