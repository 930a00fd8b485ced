"""The delta rule in chunks (Yang et al., arXiv:2406.06484, section 3.2; arXiv:2412.06464, section 3.3).

What a step writes is ``u[t] = beta[t] (v[t] - k[t] exp(g[t]) S[t - 1])``; given ``u``, the state is that of
gated linear attention with values ``u``. In a chunk that starts from ``S``, with ``G[t, s]`` the sum of log
decays over s < r <= t and ``F[t]`` the one since the start,

``(I + tril(diag(beta) K K^T exp(G), -1)) U = diag(beta) (V - diag(exp(F)) K S)``,

a triangular system for ``U = A - W S``, so the state after the chunk is a matrix times ``S`` plus a matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .torch import carried, fitting, in_chunks, scalar_sums


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, V) and the state after the last position; ``beta`` and ``log_decay`` are (B, H, T)."""
    length, dtype, wide = q.shape[2], v.dtype, state.dtype
    if log_decay is None:
        log_decay = torch.zeros_like(beta)
    q, k, v, beta, log_decay = (
        in_chunks(x, fitting(chunk, length)) for x in (q, k, v, beta.unsqueeze(-1), log_decay.unsqueeze(-1))
    )
    between, since, until = scalar_sums(log_decay.squeeze(-1).to(wide))
    between, since, until, beta = between.exp(), since.exp(), until.exp(), beta.to(wide)
    mixed = ((k @ k.mT) * between * beta).tril(-1).to(wide)  # [B, H, N, C, C]
    right = torch.cat([v * beta, k * (beta * since)], -1).to(wide)
    solved = torch.linalg.solve_triangular(mixed, right, upper=False, unitriangular=True).to(dtype)
    free, tied = solved.split([v.shape[-1], k.shape[-1]], -1)  # [B, H, N, C, V], [B, H, N, C, K]
    keys = (k * until).to(dtype).mT
    unit = torch.eye(k.shape[-1], dtype=wide, device=k.device)
    steps = since[:, :, :, -1:] * unit - (keys @ tied).to(wide)
    states = carried(steps, keys @ free, state, matrix=True)
    before = states[:, :, :-1].to(dtype)
    written = free - tied @ before
    out = ((q @ k.mT) * between).to(dtype) @ written + (q * since).to(dtype) @ before
    return out.flatten(2, 3)[:, :, :length], states[:, :, -1]
