"""VMoBA: each query of a video sees the blocks of keys whose means it resembles.

Wu et al., "VMoBA: Mixture-of-Block Attention for Video Diffusion Models", arXiv:2506.23858, sections 3.2 to
3.4; official code: KwaiVGI/VMoBA.

Three choices: blocks along time, space or both by turns (:func:`vmoba_region`, equations 1 and 2); pairs of
queries and blocks taken from one pool per head (equation 3); as many as make up a share of the pool's
similarity (equation 4), both in :func:`vmoba_selection`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..patterns import Regions
from ..patterns.regions import Cells
from .means import check_pair, expand_heads, region_means

Pool = Literal["head", "query", "block", "all"]
_AXES: dict[str, tuple[int, ...]] = {"head": (2, 3), "query": (3,), "block": (1, 2), "all": (1, 2, 3)}
"""Axes of (B, H, Lq, blocks) that compete with each other."""


def vmoba_region(
    shape: tuple[int, int, int], layer: int, *, time: int, space: tuple[int, int], both: tuple[int, int, int]
) -> tuple[int, int, int]:
    """The block of a layer: temporal, spatial and spatio-temporal by turns (equation 1).

    Args:
        shape: frames, height and width of the video.
        layer: number of the layer, from 0.
        time: frames per block of the 1-D partition, in layers 0, 3, 6, …
        space: height and width of a block of the 2-D partition, over all frames, in layers 1, 4, 7, …
        both: frames, height and width of a block of the 3-D partition, in layers 2, 5, 8, …

    Returns:
        Positions per block and axis, for :func:`vmoba_selection`.

    Raises:
        ValueError: a block larger than its axis, or a negative layer.
    """
    if layer < 0:
        raise ValueError(f"layer={layer} must not be negative")
    frames, height, width = shape
    region = ((time, height, width), (frames, *space), both)[layer % 3]
    Cells(shape, region)  # raises for a block that does not fit
    return region


@torch.no_grad()
def vmoba_selection(
    q: Tensor,
    k: Tensor,
    shape: tuple[int, ...],
    region: int | tuple[int, ...],
    *,
    threshold: float | None = 0.25,
    topk: int | None = None,
    pool: Pool = "head",
) -> Regions:
    """Choose pairs of queries and blocks of keys by the product of query and block mean.

    Every query sees its own block. Of the other pairs those with the largest similarity are taken:

    * ``threshold``: similarities are scaled to 0 to 1 within the pool, and pairs are taken until they and the
      own blocks make up that share of the pool's sum (equation 4); at least one pair per pool.
    * ``topk``: as many per query on average, the own block among them (equation 3 with a fixed number).

    ``pool`` says which pairs compete: all of a head (``"head"``, the paper's global selection), those of one
    query (``"query"``, as in MoBA, and the default of the official code), of one block in all heads
    (``"block"``), or all of a batch entry (``"all"``). The selection passes no gradient.

    Args:
        q: (B, H, L, D).
        k: (B, Hkv, L, D), where H is a multiple of Hkv.
        shape: the video or any grid of one to three axes, flattened row by row to L.
        region: positions per block and axis, see :func:`vmoba_region`; blocks at the far edge may be smaller.
        threshold: 0 to 1, or None with ``topk``.
        topk: blocks per query, or None with ``threshold``.
        pool: which pairs compete.

    Returns:
        A pattern over the grid, for batch entries and heads told apart.

    Raises:
        ValueError: shapes that do not fit, neither or both of threshold and topk, or values out of range.
    """
    check_pair(q, k)
    cells = Cells(shape, region)
    cells.check(q.shape[2], k.shape[2])
    if pool not in _AXES or (pool == "block" and topk is not None):
        raise ValueError(f"pool={pool!r} must be 'head', 'query' or 'all', or 'block' with a threshold")
    if (threshold is None) == (topk is None):
        raise ValueError(f"give one of threshold and topk, got {threshold} and {topk}")
    number = cells.number(torch.arange(q.shape[2], device=q.device))
    means = region_means(expand_heads(k, q.shape[1]), number, cells.count)
    scores = q.to(means.dtype) @ means.mT  # [B, H, L, blocks]
    own = (number.unsqueeze(-1) == torch.arange(cells.count, device=q.device)).expand_as(scores)
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must be 0 to 1")
        chosen = _by_share(scores, own, threshold, _AXES[pool])
    else:
        assert topk is not None
        if not 1 <= topk <= cells.count:
            raise ValueError(f"topk={topk} must be 1 to {cells.count}, the number of blocks")
        chosen = _by_number(scores.masked_fill(own, torch.inf), topk, _AXES[pool])
    return Regions(cells.shape, cells.region, chosen | own)


def _pooled(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Competing entries side by side: (B, H, Lq, blocks) to (..., pool)."""
    rest = [axis for axis in range(4) if axis not in axes]
    return x.permute(*rest, *axes).flatten(len(rest))


def _spread(flat: Tensor, like: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Back from :func:`_pooled`."""
    order = [axis for axis in range(4) if axis not in axes] + list(axes)
    split = flat.reshape([like.shape[axis] for axis in order])
    return split.permute([order.index(axis) for axis in range(4)])


def _by_number(scores: Tensor, topk: int, axes: tuple[int, ...]) -> Tensor:
    flat = _pooled(scores, axes)
    amount = topk * flat.shape[-1] // scores.shape[-1]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(-1, flat.topk(amount).indices, True)
    return _spread(chosen, scores, axes)


def _by_share(scores: Tensor, own: Tensor, share: float, axes: tuple[int, ...]) -> Tensor:
    flat, mine = _pooled(scores, axes), _pooled(own, axes)
    low, high = flat.amin(-1, keepdim=True), flat.amax(-1, keepdim=True)
    weight = (flat - low) / torch.where(high - low > 1e-6, high - low, 1)
    total = weight.sum(-1, keepdim=True) + 1e-6
    missing = (share - (weight * mine).sum(-1, keepdim=True) / total).clamp(min=0)
    others, order = weight.masked_fill(mine, 0).sort(dim=-1, descending=True, stable=True)
    before = others.cumsum(-1).roll(1, -1) / total
    before[..., 0] = -1  # the first is always taken
    taken = before < missing
    return _spread(torch.zeros_like(mine).scatter_(-1, order, taken), scores, axes)
