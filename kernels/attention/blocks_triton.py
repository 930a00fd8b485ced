"""Choosing blocks on CUDA, as a torch operator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs import padded
from ..registering import operator

_TILE = 32
"""Blocks per tile of scores."""


def _means(x: Tensor, block: int) -> Tensor:
    from . import blocks_kernels

    batch, heads, length, dim = x.shape
    count = -(-length // block)
    out = torch.empty(batch, heads, count, dim, dtype=torch.float32, device=x.device)
    if out.numel():
        blocks_kernels.means[(batch * heads * count,)](
            x, out, *x.stride(), heads, length, count, block, dim,
            BN=min(64, padded(block)), BD=padded(dim), num_warps=4,
        )  # fmt: skip
    return out


@operator("graphrec::choose_blocks")
def choose_blocks(q: Tensor, k: Tensor, block: int, topk: int, causal: bool) -> Tensor:
    """See :func:`graphrec.kernels.select_blocks`."""
    from . import blocks_kernels

    batch, heads, q_len, dim = q.shape
    first = q[:, :, ::block].contiguous() if causal else None
    queries, keys = (_means(q, block) if first is None else first), _means(k, block)
    q_count, k_count = queries.shape[2], keys.shape[2]
    index = torch.full((batch, heads, q_count, topk), -1, device=q.device)
    if not index.numel() or not k_count:
        return index
    table = torch.empty(batch, heads, q_count, k_count, dtype=torch.float32, device=q.device)
    tiles = -(-q_count // _TILE)
    blocks_kernels.scores[(batch * heads * tiles,)](
        queries, keys, table, q_count * dim, dim, 1, heads, heads // k.shape[1], q_count, k_count, tiles,
        (k.shape[2] - q_len) // block if causal else 0, dim,
        CAUSAL=causal, BM=_TILE, BN=_TILE, BD=padded(dim), num_warps=4,
    )  # fmt: skip
    blocks_kernels.best[(batch * heads * q_count,)](
        table, index, k_count, topk, BN=padded(k_count), num_warps=4
    )
    return index


@choose_blocks.register_fake
def _(q: Tensor, k: Tensor, block: int, topk: int, causal: bool) -> Tensor:
    return q.new_empty(*q.shape[:2], -(-q.shape[2] // block), topk, dtype=torch.int64)
