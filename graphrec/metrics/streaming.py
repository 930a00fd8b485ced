"""Metrics of a whole evaluation, collected batch by batch and over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphrec.errors import ConfigError, DataError

from .arrays import Array, check_labels, check_probabilities, check_weights, to_numpy
from .group import group_auc
from .growing import GrowingArray
from .names import AVERAGED
from .scores import Scores

_MISSING = 255
_OPTIONAL = ("weights", "groups")


class BinaryMetrics:
    """Exact metrics of T binary labels, fed batch by batch.

    It keeps every prediction, five bytes per row and label (float32 and uint8), plus four for a sample weight
    and eight for a group, so the values are those of the whole set and not a mean over batches. Probabilities
    are stored as float32; log loss clips them to float32's machine epsilon, 1.2e-7, from 0 and 1. A label
    that is NaN is left out of its own label's metrics only.

    >>> metrics = BinaryMetrics(["click"])
    >>> metrics.update([0, 1, 1, 0], [0.2, 0.9, 0.4, 0.4])
    >>> metrics.compute()["auc"]
    0.875

    Args:
        labels: Names of the T labels.
    """

    def __init__(self, labels: Sequence[str] = ("label",)) -> None:
        self.labels = tuple(labels)
        if not self.labels:
            raise ConfigError("labels: give at least one name")
        self.reset()

    def reset(self) -> None:
        """Forget everything that was fed."""
        self._fed: dict[str, GrowingArray] = {}
        self._rows = 0

    def __len__(self) -> int:
        """Number of rows fed."""
        return self._rows

    def update(self, y: Any, p: Any, weights: Any = None, groups: Any = None) -> None:
        """Add a batch; arrays, lists or tensors on any device.

        Args:
            y: (B, T), or (B,) when T is 1: labels 0, 1 or NaN.
            p: Probabilities of the same shape.
            weights: (B,) sample weights; either in every batch or in none.
            groups: (B,) whole-number group identifiers; either in every batch or in none.

        Raises:
            DataError: A shape or a value is not allowed.
        """
        y_, p_ = (self._matrix(name, to_numpy(v)) for name, v in (("labels", y), ("predictions", p)))
        if y_.shape != p_.shape:
            raise DataError(f"labels and predictions: shapes {y_.shape} and {p_.shape} differ")
        positive, known = check_labels(y_)
        batch: dict[str, Array] = {
            "labels": np.where(known, positive, _MISSING).astype(np.uint8),
            "probabilities": check_probabilities(p_).astype(np.float32),
        }
        if weights is not None:
            batch["weights"] = check_weights(weights, len(y_)).astype(np.float32)
        if groups is not None:
            batch["groups"] = _check_groups(groups, len(y_))
        self._append(batch)

    def _matrix(self, name: str, values: Array) -> Array:
        values = values[:, None] if values.ndim == 1 and len(self.labels) == 1 else values
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            expected = f"(rows, {len(self.labels)}) for {', '.join(self.labels)}"
            raise DataError(f"{name}: shape {values.shape}, expected {expected}")
        return values

    def _append(self, batch: Mapping[str, Array]) -> None:
        if not len(batch["labels"]):
            return
        for name in _OPTIONAL:
            if self._rows and (name in batch) != (name in self._fed):
                raise DataError(f"{name}: given for some batches and not for others")
        for name, values in batch.items():
            self._fed.setdefault(name, GrowingArray()).append(values)
        self._rows += len(batch["labels"])

    def state(self) -> dict[str, Array]:
        """All that was fed, for `merge` in another process.

        Returns:
            ``labels`` (N, T) uint8 with 255 for a missing one, ``probabilities`` (N, T) float32, and if they
            were given ``weights`` (N,) float32 and ``groups`` (N,) int64.
        """
        if not self._rows:
            shape = (0, len(self.labels))
            return {"labels": np.zeros(shape, np.uint8), "probabilities": np.zeros(shape, np.float32)}
        return {name: rows.array for name, rows in self._fed.items()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the `state` of another process; values as arrays or tensors."""
        batch = {name: to_numpy(values) for name, values in state.items()}
        self._matrix("labels", batch["labels"])
        self._append(batch)

    def arrays(self, label: str | None = None) -> tuple[Array, Array, Array | None]:
        """Labels (N,) float32 with NaN for missing, probabilities (N,) and weights of one label, for plots.

        Args:
            label: Its name; the first when None.
        """
        state, t = self.state(), 0 if label is None else self.labels.index(label)
        y = state["labels"][:, t].astype(np.float32)
        y[state["labels"][:, t] == _MISSING] = np.nan
        return y, state["probabilities"][:, t], state.get("weights")

    def compute(self) -> dict[str, float | None]:
        """The metrics; see `METRICS` for what each means.

        One label gives ``{"auc": …, "logloss": …, "ne", "pr_auc", "ece", "calibration", "brier", "base_rate",
        "rows"}`` and, if groups were fed, ``gauc`` and ``gauc_weighted``. Several labels give these as
        ``"<label>/auc"``, and as ``"auc"`` the mean over the labels for which it is defined.

        Returns:
            Values, with None for what is undefined, such as the AUC of rows that are all of one class.
        """
        per_label = {label: self._one(label) for label in self.labels}
        if len(self.labels) == 1:
            return per_label[self.labels[0]]
        means: dict[str, float | None] = {}
        for name in AVERAGED:
            if name in per_label[self.labels[0]]:
                defined = [v for m in per_label.values() if (v := m[name]) is not None]
                means[name] = float(np.mean(defined)) if defined else None
        return means | {f"{label}/{k}": v for label, m in per_label.items() for k, v in m.items()}

    def _one(self, label: str) -> dict[str, float | None]:
        y, p, weights = self.arrays(label)
        s = Scores.of(y, p, weights)
        result = {"auc": s.auc, "logloss": s.logloss, "ne": s.ne, "pr_auc": s.pr_auc}
        if (groups := self.state().get("groups")) is not None:
            by_group = group_auc(y, p, groups, weights)
            result |= {"gauc": by_group.mean, "gauc_weighted": by_group.weighted}
        result |= {"ece": s.ece, "calibration": s.calibration, "brier": s.brier}
        return result | {"base_rate": s.base_rate, "rows": s.rows}


def _check_groups(groups: Any, rows: int) -> Array:
    g = to_numpy(groups)
    if g.shape != (rows,) or g.dtype.kind not in "iub":
        raise DataError(f"groups: shape {g.shape} of {g.dtype}, expected ({rows},) whole numbers")
    return g.astype(np.int64)
