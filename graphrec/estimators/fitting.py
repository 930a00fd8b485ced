"""The part of a fit that comes after encoding: build a model, train it, measure it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError
from graphrec.metrics import BinaryMetrics
from graphrec.pipelines.tables import BatchLoader, EncodedTable, FeatureSpec
from graphrec.registry import card, create_model, list_models
from graphrec.training import History, TrainConfig, Trainer
from graphrec.training.seeding import seeded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from graphrec.ctr.base import CTRModel

LARGEST_BATCH, SMALLEST_BATCH, STEPS_PER_EPOCH = 4096, 64, 100


@dataclass(frozen=True)
class Trained:
    """What training leaves behind.

    Attributes:
        module: The model with its best weights, on the CPU.
        history: What happened.
        metrics: Metric values by part: ``{"valid": {"auc": ...}, "test": {...}}``.
        predictions: Labels (N, T), probabilities (N, T), weights and groups of the last of these parts.
        seconds: Time that training took, evaluations included.
    """

    module: CTRModel
    history: History
    metrics: dict[str, dict[str, float | None]]
    predictions: Predictions
    seconds: float


@dataclass(frozen=True)
class Predictions:
    """Labels and probabilities of one part.

    Attributes:
        part: Its name.
        labels: (N, T) float32, NaN where not known.
        scores: (N, T) float32 probabilities.
        weights: (N,) or None.
        groups: (N,) or None.
    """

    part: str
    labels: NDArray[np.float32]
    scores: NDArray[np.float32]
    weights: NDArray[Any] | None
    groups: NDArray[Any] | None

    def metrics(self, names: tuple[str, ...]) -> dict[str, float | None]:
        """All metrics."""
        metrics = BinaryMetrics(labels=names)
        metrics.update(self.labels, self.scores, self.weights, self.groups)
        return metrics.compute()


def pick_batch_size(rows: int) -> int:
    """A power of two that makes about a hundred steps of an epoch, between 64 and 4096."""
    power = 2 ** int(math.log2(max(rows // STEPS_PER_EPOCH, 1)))
    return min(max(power, SMALLEST_BATCH), LARGEST_BATCH)


def build(name: str, spec: FeatureSpec, options: Mapping[str, Any], seed: int) -> CTRModel:
    """A model with weights drawn from ``seed``.

    Raises:
        ConfigError: The name or an option is unknown, or the model takes one label and the table has several.
    """
    if len(spec.labels) > 1 and not card(name).multi_label:
        others = [n for n in list_models(task="ctr") if card(n).multi_label]
        raise ConfigError(
            f"model: {name} takes one label, got {', '.join(spec.labels)}; use one of {', '.join(others)}"
        )
    with seeded(seed):
        return create_model(name, spec, **options)


def train(
    module: CTRModel,
    parts: Mapping[str, EncodedTable],
    config: TrainConfig,
    run_dir: Path | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Trained:
    """Train on the train part, stop by the valid part, measure on valid and test (on train when there is
    neither).
    """
    start = time.perf_counter()
    trainer, labels = Trainer(config), module.spec.labels
    source = _loader(trainer, parts["train"], shuffle=True)
    valid = _loader(trainer, parts["valid"]) if "valid" in parts else None
    metrics = BinaryMetrics(labels=labels)
    history = trainer.fit(module, source, valid, metrics=metrics, run_dir=run_dir, fingerprint=fingerprint)
    seconds = time.perf_counter() - start
    measured = [name for name in ("valid", "test") if name in parts] or ["train"]
    predictions = [predict_part(trainer, module, name, parts[name]) for name in measured]
    values = {found.part: found.metrics(labels) for found in predictions}
    return Trained(module.cpu().eval(), history, values, predictions[-1], seconds)


def predict_part(trainer: Trainer, module: CTRModel, part: str, encoded: EncodedTable) -> Predictions:
    """Probabilities of every row of a part, beside its labels."""
    scores = trainer.predict(module, _loader(trainer, encoded))
    return Predictions(part, encoded.labels(), scores, encoded.weights(), encoded.groups())


def _loader(trainer: Trainer, encoded: EncodedTable, *, shuffle: bool = False) -> BatchLoader:
    config = trainer.config
    rows = config.batch_size if shuffle else max(config.batch_size, LARGEST_BATCH)
    return BatchLoader(
        encoded, rows, shuffle=shuffle, seed=config.seed, rank=trainer.rank, world_size=trainer.world_size
    )
