"""Attention as its formula: every logit, one softmax. The truth that the other backends are held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..patterns import Full, Pattern
from .bias import RelativeBias
from .source import Source, Weights


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Tensor | RelativeBias | None,
    scale: float,
    times: Weights | None = None,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq); see :func:`graphrec.kernels.attention`."""
    return joint(q, [Source(k, v, pattern, bias, times)], scale)


def joint(q: Tensor, sources: Sequence[Source], scale: float) -> tuple[Tensor, Tensor]:
    """One softmax over the logits of all sources side by side."""
    weights, lse = probabilities(q, sources, scale)
    out = torch.stack([_weighed(q, *pair) for pair in zip(weights, sources, strict=True)]).sum(0)
    return out.to(q.dtype), lse


def probabilities(q: Tensor, sources: Sequence[Source], scale: float) -> tuple[tuple[Tensor, ...], Tensor]:
    """The joint softmax itself: probabilities (B, H, Lq, Lk) of each source, and log-sum-exps (B, H, Lq)."""
    logits = torch.cat([_logits(q, one, scale) for one in sources], -1)
    empty = (logits == -torch.inf).all(-1, keepdim=True)
    lse = logits.masked_fill(empty, 0).logsumexp(-1, keepdim=True)
    weights = (logits - lse).exp().split([one.k.shape[2] for one in sources], -1)
    return weights, lse.masked_fill(empty, -torch.inf).squeeze(-1)


def _mask(q: Tensor, source: Source) -> Tensor:
    pattern = source.pattern or Full()
    return pattern.mask(q.shape[2], source.k.shape[2], device=q.device)


def _heads(q: Tensor, x: Tensor) -> Tensor:
    """Keys or values for each query head, in at least float32."""
    return x.to(torch.promote_types(q.dtype, torch.float32)).repeat_interleave(q.shape[1] // x.shape[1], 1)


def dense(weights: Weights, q: Tensor, source: Source) -> Tensor:
    """A bias, or weights after the softmax, broadcastable to (B, H, Lq, Lk), in at least float32."""
    if isinstance(weights, RelativeBias):
        weights = weights.dense(source.pattern or Full(), q.shape[2], source.k.shape[2])
    return weights.to(torch.promote_types(q.dtype, torch.float32))


def _logits(q: Tensor, source: Source, scale: float) -> Tensor:
    """Logits (B, H, Lq, Lk) of one source, -inf where the pattern hides a pair."""
    pattern, q_len, k_len = source.pattern or Full(), q.shape[2], source.k.shape[2]
    keys = _heads(q, source.k)
    logits = scale * q.to(keys.dtype) @ keys.mT
    if source.bias is not None:
        logits = logits + dense(source.bias, q, source)
    place = torch.arange(max(q_len, k_len), device=q.device)
    soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    if soft is not None:
        logits = logits + soft * pattern.penalty_value
    return logits.masked_fill(~_mask(q, source), -torch.inf)


def _weighed(q: Tensor, weights: Tensor, source: Source) -> Tensor:
    """The probabilities of one source, multiplied, times its values."""
    if source.times is not None:
        weights = weights * dense(source.times, q, source)
    return weights @ _heads(q, source.v)


def weighted_sum(q: Tensor, source: Source) -> Tensor:
    """What a source's ``plus`` adds to the output."""
    assert source.plus is not None
    weights = dense(source.plus, q, source).masked_fill(~_mask(q, source), 0)
    return (weights @ _heads(q, source.v)).to(q.dtype)
