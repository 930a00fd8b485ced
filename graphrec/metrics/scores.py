"""Exact metrics of one label from sorted scores.

Every metric but the group AUC depends on the predictions only through the weight of positive and of negative
rows at each distinct score. `Scores` is that table; it is made by one sort and the rest is arithmetic in
float64. So the values do not depend on the order of the rows, ties included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, clean, first_of_run, sum_runs

DECILES = 10


@dataclass(frozen=True)
class Scores:
    """The distinct scores of a prediction, ascending, with what happened at each.

    Undefined values (no rows, or one class where two are needed) are None.

    Attributes:
        score: (K,) float64 distinct probabilities, ascending.
        positive: (K,) float64 weight of the positive rows.
        negative: (K,) float64 weight of the negative rows.
        rows: Number of rows with a label and a weight.
        eps: Probabilities are kept this far from 0 and 1 in `logloss`: the machine epsilon of the dtype that
            they came in, as in scikit-learn.
    """

    score: Array
    positive: Array
    negative: Array
    rows: int
    eps: float

    @classmethod
    def of(cls, y: Any, p: Any, weights: Any = None) -> Scores:
        """Sort and count.

        Args:
            y: (N,) labels, 0, 1 or NaN for not known; array, tensor or list.
            p: (N,) probabilities.
            weights: (N,) sample weights, or None.

        Raises:
            DataError: The shapes differ, a probability is outside [0, 1], or a label is not 0, 1 or NaN.
        """
        positive, p_, w, _ = clean(y, p, weights)
        order = np.argsort(p_)
        p_, positive = p_[order], positive[order]
        starts = np.flatnonzero(first_of_run(p_))
        mass = np.ones(len(p_)) if w is None else w[order].astype(np.float64)
        won, lost = sum_runs(mass * positive, starts), sum_runs(mass * ~positive, starts)
        return cls(p_[starts].astype(np.float64), won, lost, len(p_), float(np.finfo(p_.dtype).eps))

    @property
    def total(self) -> float:
        """Weight of all rows."""
        return float(self.positive.sum() + self.negative.sum())

    @property
    def both_classes(self) -> bool:
        """Whether there are positive and negative rows."""
        return bool(self.positive.any() and self.negative.any())

    @property
    def base_rate(self) -> float | None:
        """Share of positive rows."""
        return float(self.positive.sum() / self.total) if self.rows else None

    @property
    def mean_prediction(self) -> float | None:
        """Mean probability."""
        return float(self.score @ (self.positive + self.negative) / self.total) if self.rows else None

    @property
    def calibration(self) -> float | None:
        """Mean prediction over base rate; None when no row is positive."""
        mean, rate = self.mean_prediction, self.base_rate
        return mean / rate if mean is not None and rate else None

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve; a tie counts one half."""
        if not self.both_classes:
            return None
        below = np.cumsum(self.negative) - self.negative / 2
        return float(self.positive @ below / (self.positive.sum() * self.negative.sum()))

    @property
    def auc_error(self) -> float | None:
        """DeLong standard error of `auc` (1988), weights taken as counts; None below two rows of a class."""
        positives, negatives, auc = self.positive.sum(), self.negative.sum(), self.auc
        if auc is None or min(positives, negatives) < 2:
            return None
        below = (np.cumsum(self.negative) - self.negative / 2) / negatives
        above = (positives - np.cumsum(self.positive) + self.positive / 2) / positives
        of_positives = self.positive @ (below - auc) ** 2 / (positives - 1)
        of_negatives = self.negative @ (above - auc) ** 2 / (negatives - 1)
        return float(np.sqrt(of_positives / positives + of_negatives / negatives))

    @property
    def pr_auc(self) -> float | None:
        """Average precision: the sum over cut-offs of the gain in recall times the precision."""
        if not self.both_classes:
            return None
        hits, misses = np.cumsum(self.positive[::-1]), np.cumsum(self.negative[::-1])
        return float(self.positive[::-1] @ (hits / (hits + misses)) / hits[-1])

    @property
    def logloss(self) -> float | None:
        """Mean binary cross entropy in nats, of probabilities clipped to [eps, 1 - eps]."""
        if not self.rows:
            return None
        p = np.clip(self.score, self.eps, 1 - self.eps)
        return float(-(self.positive @ np.log(p) + self.negative @ np.log1p(-p)) / self.total)

    @property
    def ne(self) -> float | None:
        """Normalised entropy: log loss over the entropy of these rows' base rate (He et al., 2014, eq. 1)."""
        rate, loss = self.base_rate, self.logloss
        if rate is None or loss is None or not self.both_classes:
            return None
        return float(loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))

    @property
    def brier(self) -> float | None:
        """Mean squared error of the probabilities."""
        if not self.rows:
            return None
        return float((self.positive @ (1 - self.score) ** 2 + self.negative @ self.score**2) / self.total)

    @property
    def ece(self) -> float | None:
        """Expected calibration error over `DECILES` bins of equal weight."""
        if not self.rows:
            return None
        bins = self.bins(DECILES)
        gap = np.abs(bins["predicted"] - bins["observed"])
        return float(gap @ bins["weight"] / self.total)

    def bins(self, count: int = DECILES) -> dict[str, Array]:
        """Rows sorted by score and cut into ``count`` parts of equal weight; rows that tie stay together.

        A distinct score goes to the part in which the middle of its weight lies. Parts that get no row are
        left out, so there may be fewer than ``count``.

        Returns:
            ``low``, ``high``, ``predicted``, ``observed`` and ``weight``, each (at most count,) float64.
        """
        mass = self.positive + self.negative
        middle = np.cumsum(mass) - mass / 2
        part = np.minimum((middle * (count / max(self.total, 1e-300))).astype(np.int64), count - 1)
        starts = np.flatnonzero(first_of_run(part))
        ends = np.append(starts[1:], len(part))[: len(starts)] - 1
        weight, won, expected = (sum_runs(v, starts) for v in (mass, self.positive, mass * self.score))
        return {
            "low": self.score[starts],
            "high": self.score[ends],
            "predicted": expected / weight,
            "observed": won / weight,
            "weight": weight,
        }

    def roc(self) -> tuple[Array, Array]:
        """False and true positive rate, each (K + 1,), from (0, 0) to (1, 1); empty for one class."""
        if not self.both_classes:
            return np.zeros(0), np.zeros(0)
        rates = (np.cumsum(np.append(0.0, c[::-1])) / c.sum() for c in (self.negative, self.positive))
        false, true = rates
        return false, true

    def precision_recall(self) -> tuple[Array, Array]:
        """Precision and recall, each (K,), from the strictest cut-off to the loosest; empty for one class."""
        if not self.both_classes:
            return np.zeros(0), np.zeros(0)
        hits, misses = np.cumsum(self.positive[::-1]), np.cumsum(self.negative[::-1])
        return hits / (hits + misses), hits / hits[-1]
