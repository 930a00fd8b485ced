"""Learning-rate schedules: one factor for all optimisers."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from .config import TrainConfig


class Schedule:
    """Multiplies the initial learning rates by a factor that depends on the step and on evaluations.

    torch's schedulers each drive one optimiser; here the dense and the row optimisers keep their ratio.

    Args:
        optimizers: Their current rates are taken as the initial ones.
        config: ``scheduler`` and the fields that it names.
        total_steps: Steps of the whole run, for the cosine and for the length of an epoch.
    """

    def __init__(self, optimizers: list[Optimizer], config: TrainConfig, total_steps: int) -> None:
        self.optimizers = optimizers
        self.initial = [float(group["lr"]) for group in self.groups]
        self.config, self.total_steps = config, total_steps
        self.plateau = 1.0
        self.bad = 0

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Groups of all optimisers; loading an optimiser's state makes new ones."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """The factor of step ``step``, counted from 0."""
        config = self.config
        warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
        if config.scheduler == "cosine":
            part = (step - config.warmup_steps) / max(1, self.total_steps - config.warmup_steps)
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, part))))
            return warmup * (config.min_lr_factor + (1 - config.min_lr_factor) * cosine)
        if config.scheduler == "step":
            epoch = step * config.epochs // max(1, self.total_steps)
            return warmup * config.step_factor ** sum(epoch >= one for one in config.step_epochs)
        return warmup * self.plateau

    def apply(self, step: int) -> None:
        """Set the rates for step ``step``."""
        factor = self.factor(step)
        for group, initial in zip(self.groups, self.initial, strict=True):
            group["lr"] = initial * factor

    def evaluated(self, improved: bool) -> None:
        """Tell the plateau schedule what an evaluation found."""
        self.bad = 0 if improved else self.bad + 1
        if self.config.scheduler == "plateau" and self.bad > self.config.plateau_patience:
            self.plateau = max(self.plateau * self.config.plateau_factor, self.config.min_lr_factor)
            self.bad = 0

    @property
    def lr(self) -> float:
        """Current rate of the first group of parameters."""
        return float(self.groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"plateau": self.plateau, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.plateau, self.bad = state["plateau"], state["bad"]
