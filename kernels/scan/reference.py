"""Recurrences step by step. The truth that the other backends are held to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def scan(a: Tensor, b: Tensor, initial: Tensor | None) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]`` along axis 1."""
    here = torch.zeros_like(b[:, 0]) if initial is None else initial
    steps = []
    for t in range(b.shape[1]):
        here = a[:, t] * here + b[:, t]
        steps.append(here)
    return torch.stack(steps, 1)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    state: Tensor | None,
    reverse: bool,
    recurrence: Callable[[Tensor, Tensor, Tensor | None], Tensor] = scan,
) -> tuple[Tensor, Tensor]:
    """Algorithm 2 of Mamba with all states at once: output (B, T, D) and the last state (B, D, N)."""
    if reverse:
        u, delta, read_in, read_out = (one.flip(1) for one in (u, delta, read_in, read_out))
    rate = (delta.unsqueeze(-1) * decay).exp()  # [B, T, D, N]
    states = recurrence(rate, (delta * u).unsqueeze(-1) * read_in.unsqueeze(2), state)
    out = (states * read_out.unsqueeze(2)).sum(-1)
    if skip is not None:
        out = out + skip * u
    if reverse:
        out = out.flip(1)
    if gate is not None:
        out = out * F.silu(gate)
    return out.to(u.dtype), states[:, -1].to(torch.promote_types(u.dtype, torch.float32))
