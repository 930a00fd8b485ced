"""Attention where every query has a list of keys of its own: nearest neighbours, top-k, sampled places."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import choose, triton_refusal
from ..checking import checked, remember, unreadable
from . import keylists_torch as plain
from .checks import broadcasts, check_shapes, check_tensors


def gather_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention of each query to the keys on its list.

    A key named twice counts twice, each time with its own bias; a query with an empty list gets output 0 and
    no gradient. Gradients reach q, k, v and bias. :class:`~graphrec.kernels.patterns.Tokens` says the same
    as a pattern, in which a key counts once.

    Args:
        q: (B, H, Lq, D).
        k: (B, Hkv, Lk, D), where H is a multiple of Hkv.
        v: (B, Hkv, Lk, Dv).
        index: integer (B, 1 or H, Lq, S), -1 for none.
        bias: added to the logits, broadcastable to (B, H, Lq, S).
        scale: factor on the products; None is ``D ** -0.5``.
        backend: "reference", "torch", "triton", or None to choose by device.

    Returns:
        (B, H, Lq, Dv) in q's dtype.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, a key that does not exist, or a backend that
            cannot run.
    """
    _check(q, k, v, index, bias)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    refusals = {"reference": None, "torch": None, "triton": triton_refusal(q, k, v)}
    name = choose("gather_attention", backend, refusals).backend
    size = (*q.shape[:3], index.shape[3])
    if bias is not None:
        bias = bias.expand(size)
    if name == "reference":
        return reference(q, k, v, index, bias, scale)
    if name == "triton":
        from .keylists_triton import listed_attention_triton

        return listed_attention_triton(q, k, v, index, bias, scale)[0]
    return plain.listed_attention(q, k, v, index, bias, scale)[0]


def reference(q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """The formula: listed keys and values as a tensor of five axes."""
    work = torch.promote_types(q.dtype, torch.float32)
    batch, heads, q_len, _ = q.shape
    if index.shape[3] == 0 or k.shape[2] == 0:
        return q.new_zeros(*q.shape[:3], v.shape[3]) + 0 * (q.sum() + k.sum() + v.sum())
    places = index.long().expand(batch, heads, q_len, -1)
    flat = places.clamp(min=0).flatten(2).unsqueeze(-1)

    def listed(x: Tensor) -> Tensor:
        x = x.to(work).repeat_interleave(heads // x.shape[1], 1)
        return x.gather(2, flat.expand(-1, -1, -1, x.shape[3])).unflatten(2, places.shape[2:])

    logits = scale * (q.to(work).unsqueeze(3) * listed(k)).sum(-1)  # [B, H, Lq, S]
    if bias is not None:
        logits = logits + bias.to(work)
    logits = logits.masked_fill(places < 0, -torch.inf)
    empty = (logits == -torch.inf).all(-1, keepdim=True)
    weights = logits.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0)
    return (weights.unsqueeze(-1) * listed(v)).sum(3).to(q.dtype)


def _check(q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None) -> None:
    check_tensors(q, k, v)
    check_shapes(q, k, v)
    batch, heads, q_len, k_len = *q.shape[:3], k.shape[2]
    want = f"({batch}, 1 or {heads}, {q_len}, any)"
    if (
        index.dim() != 4
        or index.shape[0] != batch
        or index.shape[1] not in (1, heads)
        or index.shape[2] != q_len
    ):
        raise ValueError(f"index of shape {tuple(index.shape)} must be {want}")
    if index.is_floating_point() or index.dtype == torch.bool or index.device != q.device:
        raise ValueError(f"index is {index.dtype} on {index.device}, must be of integers on {q.device}")
    if bias is not None and not broadcasts(bias, (batch, heads, q_len, index.shape[3])):
        size = (batch, heads, q_len, index.shape[3])
        raise ValueError(f"bias of shape {tuple(bias.shape)} must be 4-D and broadcast to {size}")
    if unreadable(index) or not index.numel() or checked(index, k_len):
        return
    low, high = int(index.min()), int(index.max())
    if low < -1 or high >= k_len:
        raise ValueError(f"index holds {low} to {high}, must be -1 (none) or 0 to {k_len - 1}")
    remember(index, k_len)
