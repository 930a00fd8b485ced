"""From an estimator's arguments to a model, an augmentation and a trainer's configuration."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ConfigError
from graphrec.module_estimator import sort_settings
from graphrec.pipelines.images import Augment
from graphrec.training import TrainConfig
from graphrec.training.arguments import check_devices, check_training

from ..backbone import Backbone
from ..matching import find_variant
from ..models import create_model, family
from .freezing import freeze

if TYPE_CHECKING:
    from .classifier import ImageClassifier

_SHARED = (
    "epochs", "batch_size", "learning_rate", "weight_decay", "patience", "monitor", "precision", "compile",
    "accelerator", "devices", "ema",
)  # fmt: skip
"""Constructor arguments that are fields of `TrainConfig` by the same name."""
SMALL = 64
"""Up to so many pixels a side, images are taken whole and augmented as small ones are."""


_BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "layer_decay": (lambda v: 0 < v <= 1, "it is above 0, and 1 for none"),
    "label_smoothing": (lambda v: 0 <= v < 1, "it is at least 0 and below 1"),
    "warmup_epochs": (lambda v: v >= 0, "it is at least 0"),
    "validation": (lambda v: 0 <= v < 1, "it is a share of the images, at least 0 and below 1"),
}
"""Arguments that are numbers: what they may be, in code and in words."""


_INSTEAD = {
    "num_classes": "the labels say how many classes there are",
    "pretrained": "give pretrained=, an argument of its own",
    "features_only": "graphrec.vision.create_model makes a feature pyramid",
    "out_indices": "graphrec.vision.create_model makes a feature pyramid",
}
"""What `create_model` takes that no classifier does, and what to do."""


def variant(estimator: ImageClassifier) -> str:
    """Full name of the variant."""
    return find_variant(estimator.model)


def model_options(estimator: ImageClassifier) -> dict[str, Any]:
    """Keyword arguments of the system's class.

    Raises:
        ConfigError: One is given twice, or is none of a classifier.
    """
    options = dict(estimator.model_options or {})
    for key in _INSTEAD.keys() & options.keys():
        raise ConfigError(f"{key}: is no option of a classifier's model; {_INSTEAD[key]}")
    for argument, option in (("image_size", "img_size"), ("drop_path", "drop_path_rate")):
        value = getattr(estimator, argument)
        if value is None:
            continue
        if option in options:
            raise ConfigError(f"{argument}: is given twice, in model_options as {option} too")
        options[option] = tuple(value) if isinstance(value, list) else value
    if options.get("global_pool") == "":
        raise ConfigError("global_pool: '' leaves a map of logits; a classifier takes avg, max or the like")
    return options


def build(estimator: ImageClassifier, name: str, classes: int, *, pretrained: bool | str) -> Backbone:
    """The network; draws from the global generators.

    Raises:
        ConfigError: An option is unknown, or the model cannot take images of that size.
        RunError: The weights are of another model.
    """
    options = model_options(estimator)
    return cast(Backbone, create_model(name, pretrained, num_classes=classes, **options))


def augmentation(estimator: ImageClassifier, side: int) -> Augment:
    """How training images of ``side`` pixels are changed.

    Raises:
        ConfigError: It is named or set wrongly.
    """
    given: Any = estimator.augment
    if given is None:
        given = "small" if side <= SMALL else "imagenet"
    if isinstance(given, str):
        found = Augment.of_name(given)
    else:
        found = Augment.from_dict(given) if isinstance(given, dict) else given
    if not isinstance(found, Augment):
        raise ConfigError(f"augment={given!r}: must be a recipe's name, a dict of settings or an Augment")
    mixed = {name: getattr(estimator, name) for name in ("mixup", "cutmix")}
    changes = {name: value for name, value in mixed.items() if value is not None}
    return Augment.from_dict({**found.to_dict(), **changes})


def train_config(
    estimator: ImageClassifier, seed: int, *, steps: int | None = None, **changes: Any
) -> TrainConfig:
    """The trainer's configuration; ``steps`` of an epoch decide how long the rate rises.

    Raises:
        ConfigError: A value is not allowed, or a setting is given twice.
    """
    further = dict(estimator.train_options or {})
    for key in further:
        if key in (*_SHARED, "seed"):
            raise ConfigError(f"{key}: is an argument of its own, not for train_options")
    values = {key: getattr(estimator, key) for key in _SHARED}
    values |= {"scheduler": "cosine", "optimizer": "adamw", "clip_norm": 5.0, "seed": seed}
    values |= {"progress": bool(estimator.verbose)}
    if steps is not None:
        rising = min(estimator.warmup_epochs * steps, estimator.epochs * steps / 5)
        values["warmup_steps"] = round(rising)
    return TrainConfig(**{**values, **further, **changes})


def class_weights(estimator: ImageClassifier, counts: NDArray[Any], classes: NDArray[Any]) -> Tensor | None:
    """(C,) float32 factors of the loss, or None.

    Args:
        estimator: Its ``class_weight``.
        counts: Training images of each class, (C,).
        classes: (C,) labels.

    Raises:
        ConfigError: It is no weighting, or one of other classes.
    """
    given = estimator.class_weight
    if given is None:
        return None
    seen = torch.from_numpy(counts).float()
    if given == "balanced":
        return torch.where(seen > 0, seen.sum() / (seen > 0).sum() / seen.clamp(min=1), 1.0)
    names = [str(one) for one in classes]
    weights = {str(key): value for key, value in given.items()} if isinstance(given, dict) else {}
    if set(weights) != set(names) or not all(_positive(value) for value in weights.values()):
        raise ConfigError(
            f"class_weight: {given!r} is neither 'balanced' nor a positive number for each of "
            f"{', '.join(names)}"
        )
    return torch.tensor([float(weights[name]) for name in names])


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def check(estimator: ImageClassifier) -> None:
    """Refuse wrong arguments before any image is read.

    Raises:
        ConfigError: Names the argument.
    """
    check_training({key: getattr(estimator, key) for key in ("model_options", "train_options")})
    name = variant(estimator)
    with torch.device("meta"):  # a model of no size: options and image size are checked, nothing is computed
        model = build(estimator, name, 2, pretrained=False)
    check_devices(train_config(estimator, 0))
    augmentation(estimator, max(model.img_size))
    for key, (fits, wanted) in _BOUNDS.items():
        value = getattr(estimator, key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and fits(value)):
            raise ConfigError(f"{key}: {value!r} is not allowed; {wanted}")
    if not (estimator.cache is None or isinstance(estimator.cache, bool | str | os.PathLike)):
        raise ConfigError(f"cache: {estimator.cache!r} is neither None, True, False nor a folder")
    freeze(model, estimator.freeze)
    if estimator.freeze is not None and not estimator.pretrained:
        warnings.warn(
            f"freeze: {estimator.freeze!r} keeps random weights, since pretrained is False", stacklevel=3
        )
    if estimator.class_weight not in (None, "balanced") and not isinstance(estimator.class_weight, dict):
        raise ConfigError(f"class_weight: {estimator.class_weight!r} is neither 'balanced' nor a dict")


def split_settings(estimator: ImageClassifier, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sort free settings into constructor arguments, fields of `TrainConfig` and options of the model.

    Raises:
        ConfigError: A key is none of these, or the model is unknown.
    """
    name = find_variant(changes.get("model", estimator.model))
    parameters = inspect.signature(family(name).model).parameters.values()
    options = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    return sort_settings(estimator, changes, options)


def of_network(estimator: ImageClassifier) -> dict[str, Any]:
    """What must be the same when a run is continued and is neither data nor the trainer's configuration."""
    names = ("pretrained", "freeze", "layer_decay", "label_smoothing", "class_weight", "warmup_epochs")
    values = {name: arguments(estimator)[name] for name in names}
    return {"variant": variant(estimator), "options": model_options(estimator), **values}


def arguments(estimator: ImageClassifier) -> dict[str, Any]:
    """The constructor's arguments as plain values, the seed in place of the random state."""
    values = estimator.get_params(deep=False)
    augment = values["augment"]
    if isinstance(augment, Augment):
        values["augment"] = augment.to_dict()
    return {**values, "random_state": estimator.facts_["seed"]}


def run_config(estimator: ImageClassifier) -> dict[str, Any]:
    """Everything that a run was asked for, as plain values: constructor arguments, then the data's."""
    return {**arguments(estimator), **getattr(estimator, "_source", {})}
