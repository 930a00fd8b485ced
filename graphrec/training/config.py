"""The settings of a training run, and the one place where their defaults are."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from graphrec.errors import ConfigError

_CADENCE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|sec|seconds|min|minutes|steps)\s*")
_SECONDS = {"s": 1, "sec": 1, "seconds": 1, "min": 60, "minutes": 60}


class Cadence(NamedTuple):
    """When to write a checkpoint inside an epoch: after so many steps, or after so many seconds."""

    steps: int | None = None
    seconds: float | None = None


def parse_cadence(value: int | str | None) -> Cadence:
    """Read ``checkpoint_every``: 500 or ``"500 steps"``, ``"60s"`` or ``"5 min"``, None for epochs only.

    Raises:
        ValueError: It is none of these.
    """
    if value is None:
        return Cadence()
    found = _CADENCE.fullmatch(f"{value} steps" if str(value).strip().isdigit() else str(value))
    if found is None or float(found[1]) == 0:
        raise ValueError(f'{value!r} is neither a number of steps (500) nor a time ("60s", "5 min")')
    if found[2] == "steps":
        return Cadence(steps=int(float(found[1])))
    return Cadence(seconds=float(found[1]) * _SECONDS[found[2]])


class TrainConfig(BaseModel):
    """How to train. Every field can be given by keyword or in YAML; unknown ones are refused.

    Args:
        epochs: Passes over the training rows, at most.
        batch_size: Rows per step over all processes. Make the batch source with it: the trainer takes the
            batches as they come, but Adagrad's start depends on it.
        learning_rate: Of the ordinary parameters.
        weight_decay: Of the ordinary parameters.
        optimizer: Of the ordinary parameters.
        embedding_optimizer: Of parameters with row gradients (``param.sparse_rows``), see `sparse`.
        embedding_lr: Their learning rate; None for 0.05 with Adagrad and ``learning_rate`` with Adam.
        scheduler: ``"plateau"`` multiplies the rates by ``plateau_factor`` after ``plateau_patience + 1``
            evaluations in a row without a new best; ``"cosine"`` lets them fall to ``min_lr_factor`` over
            all steps; ``"step"`` multiplies them by ``step_factor`` after each of ``step_epochs``.
        warmup_steps: Steps over which the rates rise from zero, under every schedule.
        plateau_factor: See ``scheduler``.
        plateau_patience: See ``scheduler``.
        min_lr_factor: Floor of the rates, as a part of the initial ones.
        step_epochs: See ``scheduler``; epochs that are over, so (30,) changes the 31st.
        step_factor: See ``scheduler``.
        evaluations_per_epoch: Evaluations at equal distances in an epoch; early stopping, the plateau
            schedule and the history count evaluations.
        patience: Stop after so many evaluations in a row without a new best; 0 or None to run all epochs.
        monitor: Validation metric that decides, e.g. ``"auc"``, ``"logloss"``, ``"click/auc"``.
        mode: Whether more or less of it is better; ``"auto"`` knows the metrics of this package.
        min_delta: What counts as better must be better by more than this.
        ema: Decay of a moving average of the weights, such as 0.999, which is what is evaluated and kept, see
            `averaging`; 0 or None for none. It spans the last tenth of the steps so far, at most
            ``1 / (1 - ema)``, and takes the memory of the weights once more.
        clip_norm: Largest norm of the whole gradient; larger ones are scaled down. None for no limit.
        precision: ``"bf16-mixed"`` trains with matrix products in bfloat16; weights, evaluations and
            predictions stay float32.
        compile: Compile the model's loss and prediction by `torch.compile`.
        seed: Of dropout and of everything else that draws from the global generators while training.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        devices: How many, or ``"auto"`` for all.
        strategy: ``"auto"`` or ``"ddp"``. The trainer exchanges gradients itself, see `distributed`.
        num_nodes: Machines.
        loggers: Any of ``"csv"``, ``"tensorboard"``, ``"wandb"``.
        checkpoint_every: Checkpoints inside an epoch, besides the one at its end: 500 (steps), ``"60s"``
            or None. One by time never takes more than a twentieth of the time.
        resume: Continue from the run folder's last checkpoint if there is one.
        progress: A progress bar, or one line per evaluation where there is no terminal.

    Raises:
        ConfigError: A key is unknown or its value is not allowed; the message names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(4096, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    optimizer: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    embedding_optimizer: Literal["adam", "adagrad", "row_adagrad"] = "adagrad"
    embedding_lr: float | None = Field(None, gt=0)
    scheduler: Literal["plateau", "cosine", "step", "none"] = "plateau"
    warmup_steps: int = Field(0, ge=0)
    plateau_factor: float = Field(0.1, gt=0, lt=1)
    plateau_patience: int = Field(0, ge=0)
    min_lr_factor: float = Field(1e-3, ge=0, le=1)
    step_epochs: tuple[int, ...] = ()
    step_factor: float = Field(0.1, gt=0, lt=1)
    evaluations_per_epoch: int = Field(1, ge=1)
    patience: int | None = Field(2, ge=0)
    monitor: str = Field("auc", min_length=1)
    mode: Literal["auto", "max", "min"] = "auto"
    min_delta: float = Field(0.0, ge=0)
    ema: float | None = Field(None, ge=0, lt=1)
    clip_norm: float | None = Field(10.0, gt=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**32)
    accelerator: str = "auto"
    devices: int | Literal["auto"] = 1
    strategy: Literal["auto", "ddp"] = "auto"
    num_nodes: int = Field(1, ge=1)
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ()
    checkpoint_every: int | str | None = "60s"
    resume: bool = False
    progress: bool = True

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is meant, of which pydantic would make 1 and 0."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("should not be true or false")
        return value

    @field_validator("patience", "ema")
    @classmethod
    def _never(cls, value: float | None) -> float | None:
        """One way to say never, so that a run is continued whichever way it is said."""
        return value or None

    @field_validator("checkpoint_every")
    @classmethod
    def _check_cadence(cls, value: int | str | None) -> int | str | None:
        parse_cadence(value)
        return value

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is less than 1")
        return value

    @property
    def cadence(self) -> Cadence:
        """``checkpoint_every``, read."""
        return parse_cadence(self.checkpoint_every)

    def replace(self, **changes: Any) -> TrainConfig:
        """A checked copy with some fields changed."""
        return TrainConfig(**{**self.model_dump(), **changes})

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """Read a YAML mapping of fields.

        Raises:
            ConfigError: The file cannot be read, or its content is not allowed.
        """
        import yaml

        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            found = type(values).__name__
            raise ConfigError(f"{path}: expected a mapping such as 'epochs: 10', found {found}")
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_yaml(self, path: str | Path) -> None:
        """Write all fields as YAML; `from_yaml` reads them back."""
        import yaml

        Path(path).write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _explain(error: ValidationError) -> str:
    """One line: each wrong key, its value and what would be right."""
    return "; ".join(dict.fromkeys(_explain_one(dict(e)) for e in error.errors()))


def _explain_one(error: dict[str, Any]) -> str:
    key = str(error["loc"][0]) if error["loc"] else "configuration"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, TrainConfig.model_fields, n=1)
        return f"{key}: unknown training option" + (f"; did you mean {near[0]}?" if near else "")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{key}: {message}, got {error['input']!r}"
