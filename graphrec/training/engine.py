"""`Trainer`: fit, evaluate and predict with any model that can tell its loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from numpy.typing import NDArray
from torch import nn

from .config import TrainConfig
from .distributed import Ranks, together
from .evaluation import Predict, evaluate, predict_all
from .history import History
from .interfaces import BatchSource, BuildOptimizers, Metrics
from .placement import place
from .seeding import seeded

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Trainer:
    """Runs models on the devices and processes that a configuration names.

    The model is an `nn.Module` with ``training_loss(batch) -> scalar`` and ``predict(batch) -> (B, T)``;
    batches come from a `BatchSource`. With several processes, make each source with this trainer's ``rank``
    and ``world_size``.

        trainer = Trainer(TrainConfig(epochs=3))
        history = trainer.fit(model, train, valid, metrics=BinaryMetrics(["click"]), run_dir="run")
        probabilities = trainer.predict(model, test)

    Args:
        config: The settings; the defaults if None.
        build_optimizers: Makes the optimisers of a model; `sparse.build_optimizers` if None.
    """

    def __init__(
        self, config: TrainConfig | None = None, *, build_optimizers: BuildOptimizers | None = None
    ) -> None:
        self.config = TrainConfig() if config is None else config
        self._build_optimizers = build_optimizers

    @cached_property
    def fabric(self) -> Fabric:
        """Lightning Fabric, launched at first use: from then on all processes run."""
        from .launch import launch  # brings Fabric and the compiler: seconds, which serving need not spend

        return launch(self.config)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.fabric.global_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.fabric.world_size

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.fabric.device

    def fit(
        self,
        model: nn.Module,
        train: BatchSource,
        valid: BatchSource | None = None,
        *,
        metrics: Metrics | None = None,
        run_dir: str | Path | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> History:
        """Train ``model``; it ends with the weights of its best evaluation, or the last without ``valid``.

        The global random generators are seeded inside and left as they were.

        Args:
            model: Trained in place.
            train: Training batches, shuffled by the source.
            valid: Validation batches.
            metrics: An empty metrics object for ``valid``.
            run_dir: Folder for checkpoints and logs; without one there are none.
            fingerprint: Further JSON values that must be the same when the run is resumed, by what to call
                them in a message: ``{"data": "9f3c…", "model options": {...}}``.

        Raises:
            NonFiniteLossError: The loss or gradient became NaN or infinite; the message names the batch.
            RunError: ``run_dir`` holds checkpoints of another run, or of this one and ``resume`` is not set.
            ConfigError: A setting cannot be met.
            DataError: There are no training batches, or fewer than promised.
        """
        from .loop import FitLoop
        from .sparse import build_optimizers

        with seeded(self.config.seed + self.rank, self.device), together(self.world_size):
            return FitLoop(
                self.fabric,
                self.config,
                model,
                train,
                valid,
                metrics=metrics,
                build_optimizers=self._build_optimizers or build_optimizers,
                run_dir=None if run_dir is None else Path(run_dir),
                fingerprint=fingerprint,
            ).run()

    def evaluate(self, model: nn.Module, source: BatchSource, metrics: Metrics) -> dict[str, float | None]:
        """Metrics of ``source``, over all processes; ``metrics`` is an empty object and stays so."""
        place(model, self.device)
        ranks, of_model = Ranks(self.fabric), cast(Predict, model.predict)
        with together(self.world_size):
            return evaluate(self.fabric, ranks, model, of_model, source, metrics)

    def predict(self, model: nn.Module, source: BatchSource) -> NDArray[Any]:
        """Predictions (N, T) float32 of all rows of ``source``, in its order."""
        place(model, self.device)
        with together(self.world_size):
            return predict_all(self.fabric, Ranks(self.fabric), model, cast(Predict, model.predict), source)
