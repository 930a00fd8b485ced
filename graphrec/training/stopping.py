"""Early stopping: which evaluation is the best so far, and when to give up."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphrec.errors import ConfigError

from .config import TrainConfig

_LOWER = ("loss", "ne", "ece", "brier", "entropy", "error", "mse", "rmse", "mae")
_HIGHER = (
    "auc",
    "accuracy",
    "precision",
    "recall",
    "f1",
    "ndcg",
    "map",
    "iou",
    "dice",
    "psnr",
    "ssim",
    "r2",
    "seq2hr",
    "tri",
)


def higher_is_better(monitor: str, mode: str = "auto") -> bool:
    """Whether more of a metric is better.

    Raises:
        ConfigError: ``mode`` is ``"auto"`` and the name tells nothing.
    """
    if mode != "auto":
        return mode == "max"
    parts = monitor.rsplit("/", 1)[-1].lower().split("_")
    if parts[-1].endswith(_LOWER[0]) or any(part in _LOWER for part in parts):
        return False
    if any(part in _HIGHER or part.endswith("auc") for part in parts):
        return True
    raise ConfigError(f"monitor: is more or less of {monitor!r} better? set mode to max or min")


class Stopper:
    """Follows one metric over the evaluations of a run.

    Args:
        config: ``monitor``, ``mode``, ``min_delta`` and ``patience``.
        monitor: Key in the rows of the history, ``"valid_auc"``, or ``"train_loss"`` without validation rows;
            then nothing stops early.
    """

    def __init__(self, config: TrainConfig, monitor: str) -> None:
        self.monitor, self._name = monitor, monitor.removeprefix("valid_")
        self.validated = monitor != "train_loss"
        self.higher = self.validated and higher_is_better(config.monitor, config.mode)
        self.patience = config.patience if self.validated else None
        self.min_delta = config.min_delta
        self.best: float | None = None
        self.bad = 0

    @property
    def stop(self) -> bool:
        """Whether there were ``patience`` evaluations in a row without a new best."""
        return self.patience is not None and self.bad >= self.patience

    def check(self, row: dict[str, Any]) -> None:
        """See that a row has the metric.

        Raises:
            ConfigError: It has not.
        """
        if self.monitor not in row:
            known = ", ".join(key.removeprefix("valid_") for key in row if key.startswith("valid_"))
            raise ConfigError(f"monitor: no metric {self._name!r} among the validation metrics {known}")

    def update(self, row: dict[str, Any]) -> bool:
        """Whether this row's weights are the ones to keep.

        Raises:
            ConfigError: The row lacks the metric.
        """
        self.check(row)
        value = row[self.monitor]
        if value is None or not math.isfinite(value):
            return self._undefined()
        improved = self.best is None or (value - self.best) * (1 if self.higher else -1) > self.min_delta
        self.bad = 0 if improved else self.bad + 1
        if improved:
            self.best = float(value)
        return improved

    def _undefined(self) -> bool:
        """Without a value to compare, the newest weights are kept as long as none had one."""
        warnings.warn(
            f"the validation rows do not define {self._name}, as when all are of one class, so early "
            "stopping cannot use it: give more validation rows or monitor logloss",
            stacklevel=2,
        )
        return self.best is None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.best, self.bad = state["best"], state["bad"]
