"""Pyramid sparse attention: what matters little is seen through means of 2, 4 or 8 keys, not hidden.

Li et al., "PSA: Pyramid Sparse Attention for Efficient Video Understanding and Generation",
arXiv:2512.04025, its sections on pyramid key-value blocks and on the multi-level mask generator; official
code: ziplab/Pyramid-Sparse-Attention (``src/psa_triton``, and ``qwen2.5-vl-example`` for the causal form).

For each block of queries and block of keys a *level* is chosen: 0 skips the block, 1 shows its keys, ``c``
shows the means of ``c`` neighbouring keys and values, with ``log(c)`` added to their logits, because each
stands for ``c`` keys of one softmax. A pattern speaks of one sequence of keys, so the policy returns a
:class:`Pyramid`: one pattern per level, over keys pooled for that level, which
:func:`graphrec.kernels.joint_attention` joins under one softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from ..attention.source import Source
from ..patterns import Blocks, Pattern, PooledCausal
from .importance import block_importance
from .means import check_pair, expand_heads, run_means

Measure = Literal["rank", "mass"]
VIDEO_SHARES: Mapping[int, float] = {1: 0.1, 2: 0.15, 4: 0.15, 8: 0.35}
"""Cumulative shares of the official defaults for video: a tenth of the blocks whole, 65 percent skipped."""


@dataclass(frozen=True, eq=False)
class Pyramid:
    """The level of every pair of blocks.

    Attributes:
        levels: integer (B, H, ceil(Lq / q_block), ceil(Lk / k_block)): 0 for a skipped block, else how many
            keys are pooled into one.
        used: the levels that may occur, without 0.
        q_block, k_block: positions per block.
        causal: whether keys after a query, and means that hold such keys, are hidden.
    """

    levels: Tensor
    used: tuple[int, ...]
    q_block: int
    k_block: int
    causal: bool = False

    def sources(self, k: Tensor, v: Tensor) -> list[Source]:
        """What :func:`graphrec.kernels.joint_attention` takes: one source per level in use.

        Gradients reach k and v through the means.

        Args:
            k: (B, Hkv, Lk, D).
            v: (B, Hkv, Lk, Dv).

        Returns:
            Per level ``c`` the pooled keys (B, Hkv, ceil(Lk / c), D) and values, the blocks of that level as
            a pattern, and the logarithms of the counts as a bias (1, 1, 1, ceil(Lk / c)).
        """
        found = []
        for level in self.used:
            keys, sizes = run_means(k, level)
            values, _ = run_means(v, level)
            pattern: Pattern = Blocks(self.levels == level, self.q_block, self.k_block // level)
            if self.causal:
                pattern = pattern & PooledCausal(level)
            work = torch.promote_types(k.dtype, torch.float32)
            found.append(Source(keys, values, pattern, sizes.to(work).log().view(1, 1, 1, -1)))
        return found

    @property
    def density(self) -> float:
        """Share of the work of attention over all pairs of blocks."""
        whole = self.levels.double()
        return float(torch.where(whole > 0, 1 / whole.clamp(min=1), 0).mean())


@torch.no_grad()
def psa_levels(
    scores: Tensor,
    shares: Mapping[int, float],
    *,
    by: Measure = "rank",
    least: float = 0.0,
    causal: bool = False,
) -> Tensor:
    """Levels from importance: the blocks of keys of each block of queries, in falling order, cut into shares.

    ``by="rank"``: the first ``shares[1]`` of the blocks are seen whole, those up to ``shares[2]`` as means
    of two, and so on (rounded down); ``by="mass"``: shares are of the summed importance, and the block that
    crosses a share still belongs to it. What lies beyond the last share is skipped. The official video code
    moreover rounds counts to what its kernel packs into one tile, which is not done here.

    Args:
        scores: importance (B, H, Nq, Nk), not negative.
        shares: cumulative share per level, rising with the level.
        by: "rank" or "mass".
        least: with "mass", at least this share of the blocks, and one more, is seen whole (0.06 in the
            official code); 0 for no such rule.
        causal: only blocks up to the query's own count; that one and the first are seen whole. Needs equal
            blocks of queries and keys.

    Returns:
        int64 (B, H, Nq, Nk).

    Raises:
        ValueError: shares that do not rise, or an option that does not exist.
    """
    _check_shares(shares, by)
    blocks = scores.shape[-1]
    rows = torch.arange(scores.shape[2], device=scores.device)
    future = torch.arange(blocks, device=scores.device) > rows.unsqueeze(1)
    if causal:
        scores = scores.masked_fill(future, -1)
    count = [min(row + 1, blocks) if causal else blocks for row in range(scores.shape[2])]
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(blocks, device=scores.device)
    mass = values.clamp(min=0).double()
    before = (mass.cumsum(-1) - mass) / mass.sum(-1, keepdim=True).clamp(min=1e-30)
    level = torch.zeros_like(order)
    for name, share in sorted(shares.items(), reverse=True):
        if by == "rank":
            stop = torch.tensor([int(one * share) for one in count], device=scores.device)
            inside = (rank < stop.unsqueeze(1)).expand_as(level)
        else:
            inside = (before <= share + 1e-6) if share > 0 else torch.zeros_like(level, dtype=torch.bool)
        level = torch.where(inside, name, level)
    if by == "mass" and least > 0:
        level = torch.where(rank < min(blocks, int(blocks * least) + 1), 1, level)
    level = torch.zeros_like(level).scatter_(-1, order, level)
    if causal:
        whole = (torch.arange(blocks, device=scores.device) == rows.unsqueeze(1)) | (rank == 0)
        level = level.masked_fill(whole, 1).masked_fill(future, 0)
    return level


def _check_shares(shares: Mapping[int, float], by: str) -> None:
    rising = [shares[level] for level in sorted(shares)]
    if not shares or min(shares) < 1 or rising != sorted(rising) or rising[0] < 0 or rising[-1] > 1:
        raise ValueError(f"shares={dict(shares)} must rise from 0 to 1 with levels of at least 1")
    if by not in ("rank", "mass"):
        raise ValueError(f"by={by!r} must be 'rank' or 'mass'")


def similar_levels(k: Tensor, k_block: int, thresholds: Mapping[int, float]) -> Tensor:
    """The coarsest level that each block of keys bears: its keys must resemble those pooled with them.

    Level ``c`` is borne when the first and the last of each run of ``c`` keys have a mean cosine above its
    threshold; a block without a whole run bears none but 1.

    Args:
        k: (B, H, Lk, D).
        k_block: positions per block.
        thresholds: least mean cosine per level above 1.

    Returns:
        int64 (B, H, ceil(Lk / k_block)).
    """
    batch, heads, length, _ = k.shape
    blocks = ceil(length / k_block)
    best = torch.ones(batch, heads, blocks, dtype=torch.int64, device=k.device)
    for level, least in sorted(thresholds.items()):
        runs = length // level
        ends = k[:, :, : runs * level].float().unflatten(2, (runs, level))
        cosine = torch.nn.functional.cosine_similarity(ends[:, :, :, 0], ends[:, :, :, -1], dim=-1)
        home = torch.arange(runs, device=k.device) * level // k_block
        total = cosine.new_zeros(batch, heads, blocks).index_add_(2, home, cosine)
        share = total / torch.bincount(home, minlength=blocks)  # 0 / 0 exceeds no threshold
        best = torch.where(share > least, level, best)
    return best


@torch.no_grad()
def psa_pyramid(
    q: Tensor,
    k: Tensor,
    *,
    q_block: int = 128,
    k_block: int = 64,
    shares: Mapping[int, float] = VIDEO_SHARES,
    by: Measure = "rank",
    least: float = 0.0,
    similarity: Mapping[int, float] | None = None,
    causal: bool = False,
    sample: float = 0.25,
    generator: torch.Generator | None = None,
) -> Pyramid:
    """Estimate how much each block of keys matters to each block of queries, and choose levels.

    The importance of a pair of blocks is the largest attention weight between tokens drawn from them
    (:func:`block_importance`), its level follows from :func:`psa_levels`, and no block is pooled more
    coarsely than ``similarity`` allows (:func:`similar_levels`). The selection passes no gradient.

    With ``causal=True`` the levels of a block of queries depend on keys and queries up to the end of that
    block and on nothing later: within the block a later query does change the level at which an earlier one
    sees the past. What is seen never lies in the future of any query.

    Args:
        q: (B, H, Lq, D).
        k: (B, Hkv, Lk, D), where H is a multiple of Hkv.
        q_block, k_block: positions per block; every level must divide ``k_block``.
        shares, by, least: see :func:`psa_levels`.
        similarity: least mean cosine per level, or None for no such condition.
        causal: for language models; needs Lq = Lk and equal blocks.
        sample: share of each block's tokens that the estimate looks at; 1.0 looks at all and draws nothing.
        generator: draws the tokens.

    Returns:
        The levels; :meth:`Pyramid.sources` is what ``joint_attention`` takes.

    Raises:
        ValueError: shapes, blocks or levels that do not fit.
    """
    check_pair(q, k)
    used = tuple(sorted(shares))
    if q_block < 1 or k_block < 1 or any(k_block % max(level, 1) for level in used):
        raise ValueError(
            f"q_block={q_block} and k_block={k_block} must be positive, levels {used} divide k_block"
        )
    if causal and (q_block != k_block or q.shape[2] != k.shape[2]):
        raise ValueError(
            f"causal needs equal lengths and blocks, got {q.shape[2]} and {k.shape[2]}, "
            f"{q_block} and {k_block}"
        )
    keys = expand_heads(k, q.shape[1])
    scores = block_importance(
        q, keys, q_block=q_block, k_block=k_block, causal=causal, sample=sample, generator=generator
    )
    levels = psa_levels(scores, shares, by=by, least=least, causal=causal)
    if similarity is not None:
        if not set(similarity) <= set(used):
            raise ValueError(
                f"similarity={dict(similarity)} names levels that are not in shares={dict(shares)}"
            )
        levels = torch.minimum(levels, similar_levels(keys, k_block, similarity).unsqueeze(2))
    return Pyramid(levels, tuple(sorted({1, *used})), q_block, k_block, causal)
