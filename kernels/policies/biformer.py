"""BiFormer's bi-level routing: each region of an image sees the regions that resemble it most.

Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", arXiv:2303.08810, section 3.2;
official code: rayleizhu/BiFormer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..patterns import Regions
from ..patterns.regions import Cells
from .means import check_pair, expand_heads, region_means


def biformer_region(shape: tuple[int, int], windows: int = 7) -> tuple[int, int]:
    """The region size that the official code takes for ``windows`` regions per side, rounded down.

    A grid that ``windows`` does not divide then has more regions, the last of which are smaller.

    Raises:
        ValueError: more windows than positions on an axis.
    """
    if windows < 1 or windows > min(shape):
        raise ValueError(f"windows={windows} must be 1 to {min(shape)} for shape={shape}")
    return shape[0] // windows, shape[1] // windows


@torch.no_grad()
def biformer_routing(
    q: Tensor, k: Tensor, shape: tuple[int, ...], region: int | tuple[int, ...], topk: int
) -> Regions:
    """Route every region of queries to the ``topk`` regions of keys with the largest products of means.

    With ``Qr``, ``Kr`` the means of queries and keys per region, over all heads together, ``A = Qr Kr^T``
    and the ``topk`` largest entries of each row are seen (equations 4 and 5); gathering and attention
    (equations 6 and 7) are what the pattern makes of it. The selection passes no gradient, and is the same
    for all heads.

    A region at the far edge that the grid does not fill has the mean of what it holds. The official code then
    pads keys with zeros and lets them join the softmax (in ``ops/bra_nchw.py``): to compute the same, pass
    ``sink=pattern.padding_sink()`` to attention, to leave them out pass none. The older
    ``ops/bra_legacy.py`` pads the image before the projections; there the padded image is the grid. Both
    scale logits by the width of all heads together, ``scale=(heads * head_dim) ** -0.5``.

    Args:
        q: (B, H, L, D).
        k: (B, Hkv, L, D), where H is a multiple of Hkv.
        shape: the grid, flattened row by row to L.
        region: positions per region and axis, see :func:`biformer_region`.
        topk: regions that each region sees.

    Returns:
        A pattern over the grid, for the batch entries told apart.

    Raises:
        ValueError: shapes that do not fit each other or the grid, or ``topk`` out of range.
    """
    check_pair(q, k)
    cells = Cells(shape, region)
    cells.check(q.shape[2], k.shape[2])
    if not 1 <= topk <= cells.count:
        raise ValueError(f"topk={topk} must be 1 to {cells.count}, the number of regions")
    mine, theirs = (_means(one, cells) for one in (q, expand_heads(k, q.shape[1])))
    scores = torch.einsum("bhrd,bhsd->brs", mine, theirs).unsqueeze(1)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(topk).indices, True)
    return Regions(cells.shape, cells.region, chosen)


def _means(x: Tensor, cells: Cells) -> Tensor:
    """Means of the regions, (B, H, count, D); by a view of the grid where it is cut into whole ones."""
    if any(size % region for size, region in zip(cells.shape, cells.region, strict=True)):
        return region_means(x, cells.number(torch.arange(cells.length, device=x.device)), cells.count)
    pairs = [one for pair in zip(cells.counts, cells.region, strict=True) for one in pair]
    inner = [3 + 2 * axis for axis in range(len(cells.region))]
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.unflatten(2, pairs).mean(inner, dtype=wide).flatten(2, -2)
