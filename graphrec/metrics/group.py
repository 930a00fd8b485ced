"""AUC inside groups (users), for all groups at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphrec.errors import DataError

from .arrays import Array, clean, first_of_run, to_numpy


@dataclass(frozen=True)
class GroupAUC:
    """AUC by group.

    Attributes:
        mean: Plain mean over the groups that have both classes; None when there are none.
        weighted: Mean over the same groups, each weighted by its rows (by the sum of its sample weights when
            there are any), as in DIN (Zhou et al., 2018, arXiv 1706.06978, eq. 7).
        used: Number of groups with both classes.
        groups: Number of groups.
    """

    mean: float | None
    weighted: float | None
    used: int
    groups: int


def group_auc(y: Any, p: Any, groups: Any, weights: Any = None) -> GroupAUC:
    """AUC inside each group, averaged; one sort by group and score, and no loop over groups.

    Args:
        y: (N,) labels, 0, 1 or NaN for not known.
        p: (N,) probabilities.
        groups: (N,) group identifiers of any sortable dtype.
        weights: (N,) sample weights, or None.

    Raises:
        DataError: The shapes differ or a value is not allowed.
    """
    g = to_numpy(groups)
    positive, p_, w, kept = clean(y, p, weights)
    if g.shape != kept.shape:
        raise DataError(f"groups: shape {g.shape}, expected {kept.shape}")
    if not len(p_):
        return GroupAUC(None, None, 0, 0)
    g = g[kept]
    order = _order(g, p_)
    g, p_ = g[order], p_[order]
    new_group = first_of_run(g)
    new_score = new_group | first_of_run(p_)
    mass = np.ones(len(p_)) if w is None else w[order].astype(np.float64)
    won = mass * positive[order]
    return _average(won, mass - won, np.flatnonzero(new_score), np.flatnonzero(new_group))


def _order(groups: Array, p: Array) -> Array:
    """Row order by group, then score. Small non-negative codes and float32 scores sort as one 64-bit key."""
    if p.dtype != np.float32 or groups.dtype.kind not in "iu":
        return np.lexsort((p, groups))
    groups = groups.astype(np.int64)
    if int(groups.max()) - int(groups.min()) >= 2**32:
        return np.lexsort((p, groups))
    # The bits of non-negative float32 numbers sort as the numbers do; abs() turns -0.0 into 0.0.
    codes = (groups - groups.min()).astype(np.uint64)
    return np.argsort((codes << np.uint64(32)) | np.abs(p).view(np.uint32))


def _average(won: Array, lost: Array, ties: Array, groups: Array) -> GroupAUC:
    """Average from the weights of positive and negative rows in order, and where ties and groups start."""
    first = np.searchsorted(ties, groups)
    pos, neg = np.add.reduceat(won, ties), np.add.reduceat(lost, ties)
    below = np.cumsum(neg) - neg / 2
    before = np.append(0.0, np.cumsum(neg))[first]
    pos_total, neg_total = np.add.reduceat(pos, first), np.add.reduceat(neg, first)
    both = (pos_total > 0) & (neg_total > 0)
    if not both.any():
        return GroupAUC(None, None, 0, len(groups))
    pairs = np.add.reduceat(pos * below, first) - pos_total * before
    auc = pairs[both] / (pos_total[both] * neg_total[both])
    size = (pos_total + neg_total)[both]
    return GroupAUC(float(auc.mean()), float(auc @ size / size.sum()), int(both.sum()), len(groups))
