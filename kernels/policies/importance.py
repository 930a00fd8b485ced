"""How much blocks of keys matter to blocks of queries, estimated from a few of their tokens."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

_CHUNK = 1 << 24
"""Logits held at once."""


def _drawn(x: Tensor, block: int, sample: float, generator: torch.Generator | None) -> Tensor:
    """Positions looked at, the same place in every block: int64 (B, H, N, m), beyond the end where >= L."""
    keep = max(1, round(block * sample))
    start = torch.arange(ceil(x.shape[2] / block)).unsqueeze(1) * block
    if keep >= block:
        place = torch.arange(block).expand(*x.shape[:2], block)
    else:
        place = torch.rand(*x.shape[:2], block, generator=generator).topk(keep).indices.sort(-1).values
    return (start + place.unsqueeze(2)).to(x.device)


@torch.no_grad()
def block_importance(
    q: Tensor,
    k: Tensor,
    *,
    q_block: int,
    k_block: int,
    causal: bool = False,
    sample: float = 0.25,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The largest attention weight between sampled queries and keys of each pair of blocks.

    The sampling of PSA (arXiv:2512.04025): a quarter of the tokens, at places drawn anew per head and the
    same in every block, and a softmax over the sampled keys.

    Args:
        q: (B, H, Lq, D).
        k: (B, H, Lk, D).
        q_block, k_block: positions per block.
        causal: hide keys after the query.
        sample: share of each block's positions; 1.0 takes all, without chance.
        generator: of the drawing, on the CPU.

    Returns:
        float32 (B, H, ceil(Lq / q_block), ceil(Lk / k_block)).

    Raises:
        ValueError: ``sample`` out of range.
    """
    if not 0 < sample <= 1:
        raise ValueError(f"sample={sample} must be above 0 and at most 1")
    q_at, k_at = _drawn(q, q_block, sample, generator), _drawn(k, k_block, sample, generator)
    keys = _rows(k, k_at).flatten(2, 3).float()
    hidden = k_at.flatten(2) >= k.shape[2]
    step = max(1, _CHUNK // max(1, q.shape[0] * q.shape[1] * q_at.shape[3] * keys.shape[2]))
    found = []
    for at in q_at.split(step, 2):
        logits = _rows(q, at).flatten(2, 3).float() @ keys.mT * q.shape[3] ** -0.5
        unseen = hidden.unsqueeze(2)
        if causal:
            unseen = unseen | (k_at.flatten(2).unsqueeze(2) > at.flatten(2).unsqueeze(3))
        weights = logits.masked_fill(unseen, -torch.inf).softmax(-1).nan_to_num(0)  # a row may see none
        weights = weights.masked_fill(at.flatten(2).unsqueeze(3) >= q.shape[2], 0)
        found.append(weights.unflatten(3, k_at.shape[2:]).amax(4).unflatten(2, at.shape[2:]).amax(3))
    return torch.cat(found, 2)


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """Rows by position, (B, H, N, m, D); the last row stands for what lies beyond the end."""
    index = at.clamp(max=x.shape[2] - 1).flatten(2).unsqueeze(-1).expand(-1, -1, -1, x.shape[3])
    return x.gather(2, index).unflatten(2, at.shape[2:])


__all__ = ["block_importance"]
