"""Attention as its formula: every logit, one softmax. The truth that the other backends are held to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..patterns import Pattern
from .bias import RelativeBias


def attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, bias: Tensor | RelativeBias | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq); see :func:`graphrec.kernels.attention`."""
    work = torch.promote_types(q.dtype, torch.float32)
    q_len, k_len, share = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    keys, values = (one.to(work).repeat_interleave(share, 1) for one in (k, v))
    logits = scale * q.to(work) @ keys.mT
    if isinstance(bias, RelativeBias):
        logits = logits + bias.dense(pattern, q_len, k_len).to(work)
    elif bias is not None:
        logits = logits + bias.to(work)
    place = torch.arange(max(q_len, k_len), device=q.device)
    soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    if soft is not None:
        logits = logits + soft * pattern.penalty_value
    logits = logits.masked_fill(~pattern.mask(q_len, k_len, device=q.device), -torch.inf)
    empty = (logits == -torch.inf).all(-1, keepdim=True)
    lse = logits.masked_fill(empty, 0).logsumexp(-1, keepdim=True)
    weights = (logits - lse).exp()
    return (weights @ values).to(q.dtype), lse.masked_fill(empty, -torch.inf).squeeze(-1)
