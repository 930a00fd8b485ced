"""From an estimator's constructor arguments to a model's options and a trainer's configuration."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphrec import registry
from graphrec.errors import ConfigError
from graphrec.module_estimator import sort_settings
from graphrec.pipelines.tables import TableSchema
from graphrec.training import TrainConfig
from graphrec.training.arguments import check_devices, check_training

from .fitting import pick_batch_size

if TYPE_CHECKING:
    from .classifier import CTRClassifier

_SHARED = (
    "epochs", "batch_size", "learning_rate", "weight_decay", "embedding_lr", "scheduler",
    "patience", "monitor", "precision", "compile", "accelerator", "devices",
)  # fmt: skip
"""Constructor arguments that are fields of `TrainConfig` by the same name."""


def model_options(estimator: CTRClassifier) -> dict[str, Any]:
    """The keyword arguments of the model.

    Raises:
        ConfigError: One is unknown, or the width is given twice.
    """
    options = dict(estimator.model_options or {})
    width, known = estimator.embedding_dim, registry.model_options(estimator.model)
    if width is not None and "embedding_dim" in known and options.setdefault("embedding_dim", width) != width:
        raise ConfigError("embedding_dim: is given twice, as an argument and in model_options")
    for key in options:
        if key not in known:
            near = ", ".join(difflib.get_close_matches(key, known, n=3) or sorted(known))
            raise ConfigError(f"{key}: {estimator.model} has no such option; did you mean {near}?")
    return options


def train_config(estimator: CTRClassifier, seed: int, *, rows: int | None = None) -> TrainConfig:
    """The trainer's configuration; ``rows`` decides the batch size when none is given.

    Raises:
        ConfigError: A value is not allowed, or a setting is given twice.
    """
    values = {key: getattr(estimator, key) for key in _SHARED if getattr(estimator, key) is not None}
    for key, value in (estimator.train_options or {}).items():
        if key in values and key != "compile":
            raise ConfigError(f"{key}: is given twice, as an argument and in train_options")
        values[key] = value
    if rows is not None and "batch_size" not in values:
        values["batch_size"] = pick_batch_size(rows)
    suited = registry.card(estimator.model).training
    own = {"progress": bool(estimator.verbose), "seed": seed, "ema": EMA}
    return TrainConfig(**{**own, **suited, **values})


EMA = 0.999
"""Decay of the average of the weights when none is given; benchmarks/averaging.py."""

EMBEDDING_L2 = 40.0
"""Precision of the embeddings' prior when none is given; benchmarks/quality.py and quality_real.py."""


def embedding_l2(estimator: CTRClassifier) -> float:
    """The precision of the embeddings' prior.

    Raises:
        ConfigError: It is negative or not a number.
    """
    value = EMBEDDING_L2 if estimator.embedding_l2 is None else estimator.embedding_l2
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"embedding_l2: {value!r} is not allowed; use 0 for none, or a positive number")
    return float(value)


def check(estimator: CTRClassifier, seed: int) -> None:
    """Refuse wrong arguments before any data is read.

    Raises:
        ConfigError: Names the argument.
    """
    check_training({key: getattr(estimator, key) for key in ("model_options", "train_options")})
    if estimator.roles is not None and not isinstance(estimator.roles, Mapping):
        raise ConfigError(f"roles={estimator.roles!r}: must be a dict of roles by column")
    if estimator.schema is not None and not isinstance(estimator.schema, (str, os.PathLike, TableSchema)):
        raise ConfigError(f"schema: should be a TableSchema or the path of one, got {estimator.schema!r}")
    model_options(estimator)
    check_devices(train_config(estimator, seed))
    embedding_l2(estimator)
    fraction = estimator.validation
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise ConfigError(f"validation: {fraction!r} is not a fraction of the rows, at least 0 and below 1")


def merge_options(estimator: CTRClassifier, params: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments in which ``model_options__NAME`` and ``train_options__NAME`` became entries of
    copies of these two dicts.
    """
    merged = dict(params)
    for name in ("model_options", "train_options"):
        inner = {key: key.removeprefix(f"{name}__") for key in params if key.startswith(f"{name}__")}
        if inner:
            before = merged.get(name, getattr(estimator, name)) or {}
            merged[name] = {**before, **{short: merged.pop(key) for key, short in inner.items()}}
    return merged


def split_settings(estimator: CTRClassifier, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sort free settings into constructor arguments, fields of `TrainConfig` and options of the model.

    Returns:
        Constructor arguments.

    Raises:
        ConfigError: A key is none of these; the message lists the nearest.
    """
    if changes.get("patience", 0) is None:  # said outright it is never, as of every other estimator
        changes = {**changes, "patience": 0}
    return sort_settings(estimator, changes, registry.model_options(changes.get("model", estimator.model)))
