"""Freezing: the first stages of a backbone, or all of it but the classifier, stay as they are."""

from __future__ import annotations

import re

from torch import nn

from graphrec.errors import ConfigError

from ..backbone import Backbone

ALL_BUT_HEAD, STEM = "all-but-head", "stem"


def freeze(model: Backbone, what: int | str | None) -> list[nn.Module]:
    """Take the gradients from a part of a model.

    Args:
        model: Changed in place.
        what: ``"stem"``; a number n, for the stem and the first n stages; ``"all-but-head"``, for everything
            but the classifier; None for nothing.

    Returns:
        The modules that are frozen as a whole. In evaluation mode they drop nothing and their batch norms
        keep their statistics, as `hold` has it.

    Raises:
        ConfigError: ``what`` is none of these, or the model has fewer stages.
    """
    if what is None:
        return []
    frozen = _pattern(model, what)
    for name, parameter in model.named_parameters():
        if frozen.match(name):
            parameter.requires_grad_(False)
    found = [module for module in model.modules() if _is_frozen(module)]
    if model in found:
        raise ConfigError(f"freeze: {what!r} leaves nothing to train, the model has no classifier")
    return found


def hold(modules: list[nn.Module]) -> None:
    """Put frozen modules in evaluation mode, after the model was put in training mode."""
    for module in modules:
        module.eval()


def _pattern(model: Backbone, what: int | str) -> re.Pattern[str]:
    """Of the names of the parameters to freeze."""
    if what == ALL_BUT_HEAD:
        heads = "|".join(re.escape(name) for name in model.classifier.split(","))
        return re.compile(rf"(?!(?:{heads})\.)")
    if what == STEM:
        return re.compile(model.stem_pattern)
    count = len(model.stages)
    if isinstance(what, bool) or not isinstance(what, int) or not 0 < what <= count:
        raise ConfigError(
            f"freeze: {what!r} is none of a number of stages from 1 to {count}, {STEM!r}, {ALL_BUT_HEAD!r}"
        )
    numbers = "|".join(map(str, range(what)))
    return re.compile(rf"{model.stem_pattern}|stages\.(?:{numbers})\.")


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(one.requires_grad for one in parameters)
