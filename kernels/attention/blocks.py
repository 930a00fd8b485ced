"""Choosing blocks of keys from the data: mean-pooled scores and the best few, as lists for ``BlockLists``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import choose, triton_refusal
from .checks import check_shapes, check_tensors


def select_blocks(
    q: Tensor, k: Tensor, *, block: int = 64, topk: int, causal: bool = False, backend: str | None = None
) -> Tensor:
    """The blocks of keys whose mean agrees best with a block of queries, best first, without gradient.

    The score of a block is the product of the mean query and the mean key (BiFormer, arXiv:2303.08810,
    section 3; the compressed keys of NSA, arXiv:2502.11089, with a mean for its network). The last block may
    be short; its mean is over what it has.

    ``causal`` makes the selection causal, not only what follows it: a block of queries is represented by its
    first query, and only blocks of keys that end before it are scored, so nothing later changes what is
    chosen. The block that holds the queries themselves is not scored: it is always chosen, first on the list
    and one of the ``topk``. Queries are the last ones of the keys: with a cache of past keys the lengths must
    differ by whole blocks. Attention still needs ``& Causal(offset=Lk - Lq)`` within that block.

    Args:
        q: (B, H, Lq, D).
        k: (B, Hkv, Lk, D), where H is a multiple of Hkv.
        block: positions per block, of queries and of keys.
        topk: length of each list.
        causal: whether to choose from the past alone.
        backend: "reference", "torch", "triton", or None to choose by device.

    Returns:
        int64 (B, H, ceil(Lq / block), topk), -1 where there are fewer blocks to choose from.

    Raises:
        ValueError: shapes that do not fit, ``block`` or ``topk`` below 1, lengths that do not fit
            ``causal``, or a backend that cannot run.
    """
    check_tensors(q, k, k)
    check_shapes(q, k, k)
    past = k.shape[2] - q.shape[2]
    if block < 1 or topk < 1:
        raise ValueError(f"block={block} and topk={topk} must be at least 1")
    if causal and (past < 0 or past % block):
        raise ValueError(
            f"causal needs as many keys as queries or whole blocks of {block} more, got {q.shape[2]} queries "
            f"and {k.shape[2]} keys"
        )
    refusals = {"reference": None, "torch": None, "triton": triton_refusal(q, k)}
    name = choose("select_blocks", backend, refusals).backend
    q, k = q.detach(), k.detach()
    if name == "triton":
        from .blocks_triton import choose_blocks

        return choose_blocks(q, k, block, topk, causal)
    if name == "reference":
        return reference(q, k, block, topk, causal)
    return _torch(q, k, block, topk, causal)


def reference(q: Tensor, k: Tensor, block: int, topk: int, causal: bool) -> Tensor:
    """Block by block."""
    work = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1).to(work)
    past = (k.shape[2] - q.shape[2]) // block
    lists = []
    for place, queries in enumerate(q.to(work).split(block, 2) if q.shape[2] else ()):
        one = queries[:, :, 0] if causal else queries.mean(2)  # [B, H, D]
        keys = k.split(block, 2) if k.shape[2] else ()
        scores = [(one * each.mean(2)).sum(-1) for each in keys[: past + place if causal else None]]
        ranked = [one.new_full(one.shape[:2], past + place, dtype=torch.int64)] if causal else []
        if scores:
            ranked += torch.stack(scores, -1).sort(dim=-1, stable=True, descending=True).indices.unbind(-1)
        ranked += [one.new_full(one.shape[:2], -1, dtype=torch.int64)] * topk
        lists.append(torch.stack(ranked[:topk], -1))
    return torch.stack(lists, 2) if lists else q.new_zeros(*q.shape[:2], 0, topk, dtype=torch.int64)


def block_means(x: Tensor, block: int) -> Tensor:
    """Means of blocks along the length, (B, H, ceil(L / block), D) in at least float32."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    whole = x.shape[2] // block
    means = x[:, :, : whole * block].unflatten(2, (whole, block)).mean(3)
    if whole * block == x.shape[2]:
        return means
    return torch.cat([means, x[:, :, whole * block :].mean(2, keepdim=True)], 2)


def _torch(q: Tensor, k: Tensor, block: int, topk: int, causal: bool) -> Tensor:
    """All scores at once."""
    keys = block_means(k, block)
    queries = q[:, :, ::block].to(keys.dtype) if causal else block_means(q, block)
    shared = queries.unflatten(1, (k.shape[1], -1))
    scores = (shared @ keys.unsqueeze(2).mT).flatten(1, 2)  # [B, H, query blocks, key blocks]
    if causal:
        own = torch.arange(scores.shape[2], device=q.device).unsqueeze(1) + (k.shape[2] - q.shape[2]) // block
        place = torch.arange(scores.shape[3], device=q.device)
        scores = scores.masked_fill(place > own, -torch.inf).masked_fill(place == own, torch.inf)
    best, index = scores.topk(min(topk, scores.shape[3]), -1)
    return F.pad(index.masked_fill(best == -torch.inf, -1), (0, topk - index.shape[3]), value=-1)
