"""Beginning with another network's weights, and keeping some as they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from graphrec.errors import ConfigError


def take_weights(module: nn.Module, source: nn.Module) -> None:
    """Fill a module from another of the same kind and size, which stays as it is.

    Raises:
        ConfigError: It is another.
    """
    try:
        module.load_state_dict(copy.deepcopy(source.state_dict()))
    except RuntimeError as error:
        raise ConfigError(
            f"source: is of another kind or size; use its montage and model_options "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def freeze_weights(module: nn.Module, names: Sequence[str]) -> None:
    """Stop weights whose names begin so from being trained.

    Raises:
        ConfigError: None does, or all do.
    """
    for start in names:
        found = [weight for name, weight in module.named_parameters() if name.startswith(start)]
        if not found:
            known = ", ".join(name for name, _ in module.named_parameters())
            raise ConfigError(f"freeze={start!r}: no weight is called so; there are {known}")
        for weight in found:
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in module.parameters()):
        raise ConfigError(f"freeze={list(names)!r}: leaves no weight to train")
