"""Experiment loggers by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import CSVLogger, Logger, TensorBoardLogger

from graphrec.errors import ConfigError, MissingExtraError

from .config import TrainConfig


class WandbLogger(Logger):
    """Sends metrics to Weights & Biases, installed and logged in, or offline by ``WANDB_MODE``.

    Fabric itself has no such logger; Lightning's own needs the whole of Lightning.
    """

    def __init__(self, folder: Path | None, config: dict[str, Any]) -> None:
        try:
            import wandb  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise MissingExtraError("loggers: 'wandb' is not installed; run: pip install wandb") from None
        self._run = wandb.init(dir=None if folder is None else str(folder), config=config)

    @property
    def name(self) -> str | None:
        """The project."""
        return self._run.project

    @property
    def version(self) -> str | None:
        """The run's identifier."""
        return self._run.id

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Send values of a step."""
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send settings."""
        self._run.config.update(params)

    def finalize(self, status: str) -> None:
        """Close the run."""
        self._run.finish(exit_code=0 if status == "success" else 1)


def _tensorboard(folder: Path) -> Logger:
    try:
        return TensorBoardLogger(folder, name="tensorboard")
    except ImportError:
        raise MissingExtraError(
            "loggers: 'tensorboard' is not installed; run: pip install 'graphrec[tensorboard]'"
        ) from None


_IN_FOLDER: dict[str, Callable[[Path], Logger]] = {
    "csv": lambda folder: CSVLogger(folder, name="csv"),
    "tensorboard": _tensorboard,
}


def make_loggers(config: TrainConfig, run_dir: Path | None) -> list[Logger]:
    """The loggers that ``config.loggers`` names, writing below ``run_dir/logs``.

    Raises:
        ConfigError: A logger writes files and there is no run folder.
        MissingExtraError: A package is not installed.
    """
    made: list[Logger] = []
    for name in config.loggers:
        if name not in _IN_FOLDER:
            made.append(WandbLogger(run_dir, config.model_dump(mode="json")))
        elif run_dir is None:
            raise ConfigError(f"loggers: {name!r} writes files and needs a run folder")
        else:
            made.append(_IN_FOLDER[name](run_dir / "logs"))
    return made


def log_values(loggers: list[Logger], values: dict[str, Any], step: int) -> None:
    """Send the numbers among ``values`` to every logger."""
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    for logger in loggers:
        logger.log_metrics(numbers, step=step)
