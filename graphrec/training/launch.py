"""The Fabric object of a run: devices, precision and processes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import SingleDeviceStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException

from graphrec.errors import ConfigError

from .arguments import check_devices
from .config import TrainConfig
from .freed_memory import keep_freed_memory

_KEPT: dict[tuple[tuple[str, Any], ...], Fabric] = {}
"""Those of one process, by their options and Lightning's variables.

Making one searches the entry points of all installed packages for callbacks, ten milliseconds or more, which
was most of what it took to predict a single row.
"""
_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16", "avx_ne_convert")


def launch(config: TrainConfig) -> Fabric:
    """A launched Fabric; afterwards all processes of the run exist and know each other.

    On a CPU the process keeps the memory it frees from then on, see `freed_memory`.

    Under ``torchrun`` and ``fabric run`` the number of processes is theirs and not the configuration's. With
    ``devices`` above 1 in an ordinary script, Fabric starts the script again for each further process.

    Raises:
        ConfigError: The machine does not have what the configuration asks for.
    """
    check_devices(config)
    options = _options(config)
    made = (*options.items(), *(item for item in os.environ.items() if item[0].startswith("LT_")))
    fabric = _KEPT.get(made)
    if fabric is None:
        fabric = _launched(options, config)
        if isinstance(fabric.strategy, SingleDeviceStrategy):
            _KEPT[made] = fabric
    if fabric.device.type == "cpu":
        keep_freed_memory()
        if config.precision == "bf16-mixed":
            _check_bf16()
    return fabric


def _launched(options: dict[str, Any], config: TrainConfig) -> Fabric:
    try:
        with _quiet():
            fabric = Fabric(**options)
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ConfigError(f"{given}: {' '.join(str(error).split())}") from None
    if os.environ.get("LT_CLI_USED") != "1":
        with _quiet():
            _start(fabric, config)
    return fabric


def _options(config: TrainConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        key: getattr(config, key) for key in ("accelerator", "strategy", "devices", "num_nodes", "precision")
    }
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        options |= {"devices": local, "num_nodes": int(os.environ["WORLD_SIZE"]) // local}
    return {key: value for key, value in options.items() if f"LT_{key.upper()}" not in os.environ}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Fabric's banners; its warnings stay."""
    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _start(fabric: Fabric, config: TrainConfig) -> None:
    try:
        fabric.launch()
    except TypeError:  # a notebook, where Fabric can only fork a function
        raise ConfigError(
            f"devices: {config.devices} processes cannot be started from an interactive session; "
            "write a script and start it with torchrun"
        ) from None


def _check_bf16() -> None:
    flags = torch.cpu.get_capabilities()
    if not any(flags.get(flag, False) for flag in _BF16_FLAGS):
        warnings.warn(
            "precision: this CPU has no bfloat16 instructions; bf16-mixed is emulated, slower than 32-true",
            stacklevel=3,
        )
