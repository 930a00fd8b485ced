"""BiFormer's bi-level routing: each region of an image sees the regions that resemble it most.

Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", arXiv:2303.08810, section 3.2;
official code: rayleizhu/BiFormer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.core import as_given
from ..patterns import Regions
from ..patterns.regions import Cells
from .means import check_pair, expand_heads


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
    wide = torch.promote_types(q.dtype, torch.float32)
    averages = [_averages(*one, q.device, wide) for one in zip(cells.shape, cells.region, strict=True)]
    mine, theirs = (_means(one, averages) for one in (q, expand_heads(k, q.shape[1])))
    scores = torch.bmm(mine, theirs.mT).unsqueeze(1)
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(topk).indices, True)
    return Regions(cells.shape, cells.region, chosen)


@as_given
def _means(x: Tensor, averages: list[Tensor]) -> Tensor:
    """Means of the regions, all heads side by side, (B, count, H * D).

    One axis after the other is averaged by a product with a matrix: a sum over the inner axes of a view takes
    some ten times as long.
    """
    batch, heads, length, dim = x.shape
    x, lead, wide = x.transpose(1, 2).flatten(2).to(averages[0].dtype), batch * length, heads * dim
    for one in reversed(averages):
        lead //= one.shape[1]
        x = torch.bmm(one.expand(lead, -1, -1), x.reshape(lead, one.shape[1], wide))
        wide *= len(one)
    return x.reshape(batch, wide // (heads * dim), heads * dim)


def _averages(size: int, region: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """What averages an axis in runs of ``region``, the last of which may be shorter: (runs, size)."""
    place = torch.arange(size, device=device)
    mine = torch.arange(-(-size // region), device=device)[:, None] == place // region
    return mine.to(dtype) / mine.sum(1, keepdim=True)
