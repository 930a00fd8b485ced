"""Linear attention in chunks: pairs within a chunk, a running state between chunks.

With chunks of length ``C`` a sequence of ``T`` costs ``T * C`` pairs instead of ``T * T``: out of chunk ``c``
comes ``tril(Q_c K_c^T) V_c + Q_c S_c`` where ``S_c`` is the sum of ``K^T V`` over the chunks before.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, state: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, V) and the state after the last position, (B, H, K, V)."""
    if not causal:
        final = k.mT @ v
        final = final if state is None else final + state
        return q @ final, final
    length = q.shape[2]
    if length == 0:
        empty = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]) if state is None else state
        return v.new_zeros(*q.shape[:3], v.shape[3]), empty
    q, k, v = (
        F.pad(x, (0, 0, 0, -length % chunk)).unflatten(2, (-1, chunk)) for x in (q, k, v)
    )  # [B, H, N, C, D]
    sums = (k.mT @ v).cumsum(2)  # [B, H, N, K, V]
    before = F.pad(sums[:, :, :-1], (0, 0, 0, 0, 1, 0))
    final = sums[:, :, -1]
    if state is not None:
        before, final = before + state.unsqueeze(2), final + state
    out = (q @ k.mT).tril() @ v + q @ before
    return out.flatten(2, 3)[:, :, :length], final
