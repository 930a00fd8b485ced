"""Linear attention and its gated forms as their formulas, the truth that the other backends are held to."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All pairs. Output (B, H, T, V) and the state after the last position, (B, H, K, V)."""
    weights = q @ k.mT
    if causal:
        weights = weights.tril()
    final = k.mT @ v
    out = weights @ v
    if state is not None:
        out, final = out + q @ state, final + state
    return out, final


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One step at a time; ``log_decay`` is (B, H, T, K) or (B, H, T, 1), ``state`` (B, H, K, V)."""
    steps = []
    for t in range(q.shape[2]):
        state = log_decay[:, :, t, :, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None]
        steps.append(q[:, :, t, None] @ state)
    return torch.cat(steps, 2) if steps else v.new_zeros(v.shape), state


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One step at a time; ``beta`` and ``log_decay`` are (B, H, T), ``state`` (B, H, K, V)."""
    steps = []
    for t in range(q.shape[2]):
        if log_decay is not None:
            state = log_decay[:, :, t, None, None].exp() * state
        key = k[:, :, t, None]
        missing = v[:, :, t, None] - key @ state
        state = state + key.mT @ (beta[:, :, t, None, None] * missing)
        steps.append(q[:, :, t, None] @ state)
    return torch.cat(steps, 2) if steps else v.new_zeros(v.shape), state
