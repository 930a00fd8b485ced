"""Attention among fields as its formulas: the truth that the other backends are held to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def field_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, H, F, Dv); computed in float32 at least."""
    work = torch.promote_types(q.dtype, torch.float32)
    return ((scale * q.to(work) @ k.to(work).mT).softmax(-1) @ v.to(work)).to(q.dtype)


def project(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, heads: int, residual: bool, rectify: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What an interacting layer reads off its input.

    Args:
        x: (B, F, d) field vectors.
        weight: (4 h d', d) projections to Q, K, V, R in this order, heads inside each; (3 h d', d) without R.
        bias: (4 h d',) or (3 h d',), or None.
        heads: heads h.
        residual: whether there is R.
        rectify: apply ReLU to the projections.

    Returns:
        Queries, keys and values (B, h, F, d') and, if there is one, the residual (B, F, h d').
    """
    projected = F.linear(x, weight, bias)
    projected = torch.relu(projected) if rectify else projected
    parts = projected.unflatten(-1, (3 + residual, heads, -1)).unbind(2)  # each [B, F, h, d']
    query, key, value = (part.transpose(1, 2) for part in parts[:3])
    return query, key, value, parts[3].flatten(2) if residual else None


def compose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    dropout: float,
) -> Tensor:
    """The interacting layer of plain operations, in the precision of its input, with dropout."""
    query, key, value, rest = project(x, weight, bias, heads=heads, residual=residual, rectify=rectify)
    weights = F.dropout(((query * scale) @ key.mT).softmax(-1), dropout)
    out = (weights @ value).transpose(1, 2).flatten(2)
    return torch.relu(out if rest is None else out + rest)


def interacting_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    dropout: float,
) -> Tensor:
    """(B, F, h d'); computed in float32 at least."""
    work = torch.promote_types(x.dtype, torch.float32)
    wide = None if bias is None else bias.to(work)
    return compose(x.to(work), weight.to(work), wide, heads, scale, residual, rectify, dropout).to(x.dtype)
