"""Linear attention as its formula: all pairs, no softmax. The truth that the chunked form is held to."""

from __future__ import annotations

from torch import Tensor


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, V) and the state after the last position, (B, H, K, V)."""
    weights = q @ k.mT
    if causal:
        weights = weights.tril()
    final = k.mT @ v
    out = weights @ v
    if state is not None:
        out, final = out + q @ state, final + state
    return out, final
