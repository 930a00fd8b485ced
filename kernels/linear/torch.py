"""Linear attention in chunks: pairs within a chunk, a running state between chunks.

With chunks of length ``C`` a sequence of ``T`` costs ``T * C`` pairs instead of ``T * T``: out of chunk ``c``
comes ``tril(Q_c K_c^T) V_c + Q_c S_c`` where ``S_c`` is the sum of ``K^T V`` over the chunks before. A decay
multiplies each product by ``exp`` of the sum of log decays between the two positions. Such sums are formed by
adding only (a difference of long sums would lose a small decay behind a large one), so they are never
positive for decays up to 1, and a log decay of -inf starts afresh.

Legend: N chunks of C positions, K and V dimensions of a key and a value.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .carry import carry_states


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, V) and the state after the last position, (B, H, K, V) of the dtype of ``state``."""
    if not causal:
        final = (k.mT @ v).to(state.dtype) + state
        return q @ final.to(q.dtype), final
    length = q.shape[2]
    q, k, v = (in_chunks(x, fitting(chunk, length)) for x in (q, k, v))
    sums = k.mT @ v
    states = carried(state.new_ones(*sums.shape[:3], 1, 1), sums, state)
    out = (q @ k.mT).tril() @ v + q @ states[:, :, :-1].to(q.dtype)
    return out.flatten(2, 3)[:, :, :length], states[:, :, -1]


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The same with decays (B, H, T, 1 or K); q and k may have fewer heads than v, which share them."""
    length, dtype = q.shape[2], v.dtype
    q, k = shared(q, v.shape[1]), shared(k, v.shape[1])
    q, k, v, log_decay = (in_chunks(x, fitting(chunk, length)) for x in (q, k, v, log_decay))
    log_decay = log_decay.to(state.dtype)
    if log_decay.shape[-1] == 1:
        between, since, until = scalar_sums(log_decay.squeeze(-1))
        weights = (q @ k.mT) * between.exp()
    else:
        weights, since, until = pair_weights(q, k, log_decay)
    steps = since[:, :, :, -1].unsqueeze(-1).exp()  # [B, H, N, K or 1, 1]
    sums = (k * until.exp()).to(dtype).mT @ v
    states = carried(steps, sums, state)
    out = weights.to(dtype) @ v + (q * since.exp()).to(dtype) @ states[:, :, :-1].to(dtype)
    return out.flatten(2, 3)[:, :, :length], states[:, :, -1]


def shared(x: Tensor, heads: int) -> Tensor:
    """(B, G, T, D) to (B, heads, T, D), every head repeated for those that share it."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def fitting(chunk: int, length: int) -> int:
    """The power of two that a chunk is rounded up to, no longer than a short sequence needs."""
    size = 1
    while size < chunk and size < length:
        size *= 2
    return size


def in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(B, H, T, ...) to (B, H, N, C, ...), filled up with zeros at the end."""
    short = -x.shape[2] % chunk
    if short:  # without the test, a copy
        x = F.pad(x, (0, 0) * (x.dim() - 3) + (0, short))
    return x.unflatten(2, (-1, chunk))


def carried(steps: Tensor, sums: Tensor, state: Tensor, matrix: bool = False) -> Tensor:
    """States before each chunk and after the last, (B, H, N + 1, K, V); see :func:`carry_states`."""
    batch, heads = sums.shape[:2]
    states = carry_states(
        steps.to(state.dtype).flatten(0, 1), sums.to(state.dtype).flatten(0, 1), state.flatten(0, 1), matrix
    )
    found: Tensor = states.unflatten(0, (batch, heads))
    return found


def scalar_sums(log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of log decays (..., C): between two positions, since a chunk's start, and until its end.

    Returns:
        (..., C, C), over s < r <= t, and -inf for s > t; (..., C, 1) over r <= t; (..., C, 1) over r > t.
    """
    size = log_decay.shape[-1]
    steps = log_decay.unsqueeze(-1).expand(*log_decay.shape, size).tril(-1).cumsum(-2)
    since = steps[..., :1] + log_decay[..., :1, None]
    until = steps[..., -1, :, None]
    hidden = torch.ones(size, size, dtype=torch.bool, device=steps.device).triu(1)
    return steps.masked_fill(hidden, float("-inf")), since, until


def pair_weights(q: Tensor, k: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sum_d q[t, d] k[s, d] exp(sum of log_decay[r, d] over s < r <= t)`` for s <= t, by doubling.

    Two neighbouring blocks of h positions meet at their border: the decay of a pair splits into the sum since
    the border, which goes to the query, and the sum until it, which goes to the key. Every pair is split
    once, at the level where its positions part, so a chunk takes log2(C) products and no C * C * K tensor.

    Returns:
        (..., C, C), zero for s > t, and the sums since the start and until the end, (..., C, K).
    """
    dtype, size = q.dtype, 1
    weights = (q * k).sum(-1)[..., None, None]  # [..., blocks, h, h]
    since, until = log_decay.unsqueeze(-2), torch.zeros_like(log_decay).unsqueeze(-2)  # [..., blocks, h, K]
    while since.shape[-3] > 1:
        (early, late), (gone, left) = _halves(since), _halves(until)
        ends = early[..., -1:, :], late[..., -1:, :]
        queries = _halves(q.unflatten(-2, (-1, size)))[1] * late.exp()
        keys = _halves(k.unflatten(-2, (-1, size)))[0] * gone.exp()
        met = (queries.to(dtype) @ keys.to(dtype).mT).to(weights.dtype)
        first, second = _halves(weights)
        upper, lower = torch.cat([first, torch.zeros_like(met)], -1), torch.cat([met, second], -1)
        weights = torch.cat([upper, lower], -2)
        since = torch.cat([early, late + ends[0]], -2)
        until = torch.cat([gone + ends[1], left], -2)
        size *= 2
    return weights.squeeze(-3), since.squeeze(-3), until.squeeze(-3)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 2 * blocks, h, D) as the blocks at even and at odd places."""
    return x[..., 0::2, :, :], x[..., 1::2, :, :]
