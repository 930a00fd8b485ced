"""Numeric transforms, fitted on training rows in one pass: moments, range, quantile edges and knots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .features import FIRST_ID, NULL_ID

_SAMPLE = 1 << 16
"""Values that a sample has at least, where there are as many: a quantile's error is a fifth of a per cent."""
_ROWS = 50
"""Training rows that an interval between knots has at least: noise is learned from fewer."""


class Scaler:
    """One numeric column to float32, NaN where it is missing.

    In two steps, so that fitting reads the data once: `raw` needs nothing but the first batch (a pivot that
    keeps large numbers exact in float32, and the logarithm), `scale` needs the moments of all training rows.
    Values outside the training range, infinities among them, are clipped to it.

    Args:
        transform: ``"standard"``, ``"log"``, ``"minmax"`` or ``"none"``.
    """

    def __init__(self, transform: str, **state: float) -> None:
        self.transform = transform
        self.pivot: float | None = state.get("pivot")
        self.low, self.high = state.get("low", np.inf), state.get("high", -np.inf)
        self.shift, self.factor = state.get("shift", 0.0), state.get("factor", 1.0)
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def raw(self, values: np.ndarray) -> np.ndarray:
        """(n,) float32: pivot subtracted, logarithm taken."""
        if self.transform == "log":
            out = np.log1p(np.abs(values))
            return np.copysign(out, values, out=out).astype(np.float32, copy=False)
        if self.pivot is None:
            self.pivot = self._pivot_of(values)
        if values.dtype == np.float32 and self.pivot == 0.0:
            return values
        return (values - np.float64(self.pivot)).astype(np.float32)

    def _pivot_of(self, values: np.ndarray) -> float:
        if self.transform == "none" or values.dtype == np.float32:
            return 0.0
        finite = values[np.isfinite(values)]
        return float(np.median(finite)) if len(finite) else 0.0

    def observe(self, raw: np.ndarray) -> None:
        """Take training values (what `raw` gave) into the moments (Chan et al., 1979) and the range."""
        finite = raw[np.isfinite(raw)]
        if not len(finite):
            return
        self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        n, mean = len(finite), float(finite.mean(dtype=np.float64))
        centred = finite - np.float32(mean)
        squares = float(np.dot(centred, centred))
        delta, total = mean - self._mean, self._count + n
        self._squares += squares + delta * delta * self._count * n / total
        self._mean += delta * n / total
        self._count = total

    def finish(self) -> None:
        """Turn the moments into shift and factor."""
        self.pivot = self.pivot or 0.0
        if not self._count:
            self.low, self.high = 0.0, 0.0
            return
        if self.transform in ("standard", "log"):
            spread = float(np.sqrt(self._squares / self._count))
            self.shift, self.factor = self._mean, 1.0 / spread if spread > 1e-12 else 1.0
        elif self.transform == "minmax":
            width = self.high - self.low
            self.shift, self.factor = self.low, 1.0 / width if width > 0 else 1.0

    def scale(self, raw: np.ndarray) -> np.ndarray:
        """(n,) float32 final values; NaN stays NaN."""
        out = np.clip(raw, np.float32(self.low), np.float32(self.high))
        if self.shift:
            out -= np.float32(self.shift)
        if self.factor != 1.0:
            out *= np.float32(self.factor)
        return out

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs."""
        keys = ("pivot", "low", "high", "shift", "factor")
        return {"transform": self.transform, **{k: getattr(self, k) for k in keys}}


class Knots(Scaler):
    """One numeric column to positions among its knots, float32 in ``[0, K - 1]``, NaN where it is missing.

    Positions are linear between two knots, and those of values outside stop at the first or the last knot. A
    value that more than one in `bins` training rows has is a knot itself, so that a column that is mostly 0
    keeps a curve for the rest; the other knots divide the other rows evenly. Where there are no more than
    `bins` different values, they are the knots. Few rows get fewer intervals, of 50 rows or more.

    Args:
        bins: Intervals between knots, at most.
        knots: Knots that are known already, ascending, relative to the pivot.
        centre: Then, which one is nearest the median of the training rows.
        pivot: And their pivot.
    """

    def __init__(
        self,
        bins: int,
        knots: Sequence[float] | None = None,
        centre: int = 0,
        pivot: float | None = None,
    ) -> None:
        super().__init__("piecewise")
        self.bins, self.centre, self.pivot = bins, centre, pivot
        self.knots = None if knots is None else np.array(knots, np.float64)
        self._sample = _Sample()

    def observe(self, raw: np.ndarray) -> None:
        """Take training values (what `raw` gave) into the sample."""
        self._sample.add(raw)

    def finish(self) -> None:
        """Turn the sample into knots."""
        self.pivot = self.pivot or 0.0
        sample = self._sample.take()
        if not len(sample):
            self.knots = np.zeros(1)
            return
        self.knots = _spread(sample, max(2, min(self.bins, len(sample) // _ROWS)))
        self.centre = round(float(np.interp(np.median(sample), self.knots, np.arange(len(self.knots)))))

    def scale(self, raw: np.ndarray) -> np.ndarray:
        """(n,) float32 positions; NaN stays NaN."""
        assert self.knots is not None
        if len(self.knots) == 1:  # np.interp would give NaN that position too
            return np.where(np.isnan(raw), raw, np.float32(0.0))
        return np.interp(raw, self.knots, np.arange(len(self.knots))).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs."""
        assert self.knots is not None
        return {"knots": self.knots.tolist(), "centre": self.centre, "pivot": self.pivot}


def _spread(sample: np.ndarray, bins: int) -> np.ndarray:
    """At most ``bins + 1`` ascending knots; frequent values are knots, the others divide the other rows."""
    values, counts = np.unique(sample, return_counts=True)
    if len(values) <= bins:
        return values
    frequent = counts * bins > len(sample)
    rest = np.repeat(values[~frequent], counts[~frequent])
    intervals = max(1, bins - int(frequent.sum()))
    between = np.quantile(rest, np.linspace(0, 1, intervals + 1)) if len(rest) else rest
    return np.unique(np.concatenate([values[frequent], between]))


class Bucketer:
    """One numeric column to ids of quantile buckets: null is 0, the lowest bucket is `FIRST_ID`.

    Args:
        bins: Most buckets; equal quantiles are merged.
        edges: Upper edges that are known already.
    """

    def __init__(self, bins: int, edges: np.ndarray | None = None, counts: np.ndarray | None = None) -> None:
        self.bins, self.edges = bins, edges
        self.counts = np.zeros(0, np.int64) if counts is None else counts
        self._sample = _Sample()

    def observe(self, values: np.ndarray) -> None:
        """Take training values into the sample."""
        self._sample.add(values)

    def finish(self) -> None:
        """Turn the sample into edges."""
        sample = self._sample.take()
        quantiles = np.quantile(sample, np.arange(1, self.bins) / self.bins) if len(sample) else np.zeros(0)
        edges = np.unique(quantiles.astype(np.float32))
        self.edges = edges[edges > np.float32(sample.min())] if len(sample) else edges
        self.counts = np.zeros(self.size, np.int64)

    @property
    def size(self) -> int:
        """Number of ids, null and unseen included."""
        return FIRST_ID + len(self.edges if self.edges is not None else ()) + 1

    def ids(self, values: np.ndarray) -> np.ndarray:
        """(n,) int32 bucket ids of float32 values."""
        assert self.edges is not None
        out = np.searchsorted(self.edges, values, side="right").astype(np.int32) + np.int32(FIRST_ID)
        out[np.isnan(values)] = NULL_ID
        return out


class _Sample:
    """Every k-th finite value of what is added, with k doubling whenever the sample is full."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._stride, self._offset, self._kept = 1, 0, 0

    def add(self, values: np.ndarray) -> None:
        """Add values, (n,)."""
        values = values[np.isfinite(values)]
        picked = values[(-self._offset) % self._stride :: self._stride]
        self._offset += len(values)
        self._parts.append(picked.astype(np.float64))
        self._kept += len(picked)
        if self._kept > 2 * _SAMPLE:
            merged = np.concatenate(self._parts)[::2]
            self._parts, self._kept, self._stride = [merged], len(merged), self._stride * 2

    def take(self) -> np.ndarray:
        """The sample, float64, which is given up."""
        sample = np.concatenate(self._parts) if self._parts else np.zeros(0)
        self._parts = []
        return sample
