"""The arguments that all estimators share, checked before any data are read."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_random_state

from graphrec.errors import ConfigError

if TYPE_CHECKING:
    from .config import TrainConfig

_WHOLE = ("epochs", "batch_size")
_NUMBERS: dict[str, tuple[float, float]] = {
    "learning_rate": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "validation": (0.0, 1.0),
}
_MAPPINGS = ("model_options", "train_options")
_SWITCHES = ("balanced", "blend", "centre", "lower", "official_arithmetic", "singletons")
_SEEDS = 2**32
"""numpy takes seeds below this."""


def check_whole(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse what is no whole number from ``least`` up.

    Raises:
        ConfigError: Names the argument and the value.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value!r}: must be a whole number from {least} up")


def check_training(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of an estimator that no training can have.

    Args:
        arguments: An estimator's, by name. Of ``epochs``, ``batch_size``, ``patience``, ``learning_rate``,
            ``weight_decay``, ``validation``, ``model_options``, ``train_options``, ``random_state`` and the
            switches those that are there are looked at; ``train_options`` may not repeat an argument.

    Raises:
        ConfigError: Names the argument, its value and what would be right.
    """
    for name in _WHOLE:
        check_whole(name, arguments.get(name, 1))
    if arguments.get("patience") is not None:
        check_whole("patience", arguments["patience"], least=0)
    for name, (low, high) in _NUMBERS.items():
        if name in arguments:
            check_number(name, arguments[name], low, high, positive=name == "learning_rate")
    for name in _SWITCHES:
        if not isinstance(arguments.get(name, False), bool | np.bool_):
            raise ConfigError(f"{name}={arguments[name]!r}: must be true or false")
    _check_seed(arguments.get("random_state"))
    for name in _MAPPINGS:
        value = arguments.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{name}={value!r}: must be a dict of settings by name, found {type(value).__name__}"
            )
    for name in arguments.get("train_options") or {}:
        if name in arguments:
            raise ConfigError(f"train_options: {name} is an argument of its own; give {name}=")


def check_number(name: str, value: Any, low: float, high: float, *, positive: bool = False) -> None:
    """Refuse what is no number from ``low`` (with ``positive`` above it) and below ``high``.

    Raises:
        ConfigError: Names the argument and the value.
    """
    right = isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= float(value) < high
    if not right or (positive and value == low):
        above = f"above {low:g}" if positive else f"from {low:g}"
        below = f" and below {high:g}" if math.isfinite(high) else ""
        raise ConfigError(f"{name}={value!r}: must be a finite number {above}{below}")


def check_devices(config: TrainConfig) -> None:
    """Refuse more processes on a CPU than it has cores: each waits for all others at every step.

    Under ``torchrun`` and ``fabric run`` the number of processes is theirs.

    Raises:
        ConfigError: ``devices`` is above the number of cores.
    """
    cores, started = os.cpu_count() or 1, "TORCHELASTIC_RUN_ID" in os.environ or "LT_DEVICES" in os.environ
    if started or config.devices == "auto" or config.devices <= cores:
        return
    import torch

    cards = torch.cuda.is_available() or torch.backends.mps.is_available()
    if config.accelerator == "cpu" or (config.accelerator == "auto" and not cards):
        raise ConfigError(
            f"devices={config.devices}: on a CPU that is as many processes, and this machine has {cores} "
            f"core{'s' * (cores > 1)}; ask for at most that"
        )


def seed_of(random_state: Any) -> int:
    """The whole number that everything random of one fit starts from: of an int itself, so that runs can be
    told apart by it. Processes of a distributed run must agree, so None is 0 there.

    Args:
        random_state: As in scikit-learn: None, a whole number or a `numpy.random.RandomState`.

    Raises:
        ConfigError: It is none of these.
    """
    _check_seed(random_state)
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    if random_state is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return 0
    return int(check_random_state(random_state).randint(2**31 - 1))


def _check_seed(seed: Any) -> None:
    """Refuse what numpy takes for no seed."""
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool) and 0 <= int(seed) < _SEEDS
    if not (seed is None or whole or isinstance(seed, np.random.RandomState)):
        right = f"a seed (a whole number from 0 to {_SEEDS - 1}), a RandomState or None"
        raise ConfigError(f"random_state={seed!r}: must be {right}")
