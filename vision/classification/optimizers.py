"""Groups of parameters: rates that fall with the distance from the head, and decay where it belongs."""

from __future__ import annotations

from typing import Any

from timm.optim import param_groups_layer_decay
from torch.optim import Optimizer

from graphrec.training import TrainConfig
from graphrec.training.sparse import dense_optimizer

from ..backbone import Backbone


def parameter_groups(
    model: Backbone, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trainable parameters in groups of one rate and one decay each, the highest rate first.

    Vectors, biases and what the model names in ``no_weight_decay`` do not decay. The rate of a block is
    ``layer_decay`` times that of the block after it (BEiT, arXiv:2106.08254); the head's is
    ``learning_rate``.
    """
    groups = param_groups_layer_decay(
        model, weight_decay, no_weight_decay_list=model.no_weight_decay(), layer_decay=layer_decay
    )
    found = [
        {"params": one["params"], "lr": learning_rate * one["lr_scale"], "weight_decay": one["weight_decay"]}
        for one in groups
    ]
    return sorted(found, key=lambda one: -one["lr"])


def make_optimizer(model: Backbone, config: TrainConfig, layer_decay: float = 1.0) -> Optimizer:
    """The optimiser that a configuration names, over `parameter_groups`."""
    groups = parameter_groups(model, config.learning_rate, config.weight_decay, layer_decay)
    return dense_optimizer(config.optimizer, groups, config.learning_rate, config.weight_decay)
