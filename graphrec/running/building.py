"""From a recipe's `model` and `training` to an estimator, with complaints that name the key."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from graphrec.errors import ConfigError
from graphrec.pipelines.recipes.complaints import near, refuse_switch

_E = TypeVar("_E")
_RESERVED = ("model", "model_options", "random_state", "train_options", "verbose")


def build_estimator(
    kind: Callable[..., _E], training: Mapping[str, Any], *, more: Collection[str] = (), **fixed: Any
) -> _E:
    """An estimator from the settings of a recipe.

    Args:
        kind: Its class.
        training: Settings by name: arguments of the constructor, or names in ``more``.
        more: Names that go into the argument ``train_options``, such as fields of `TrainConfig`.
        **fixed: Arguments that the task decides, such as ``model`` and ``random_state``; no settings.

    Raises:
        ConfigError: A setting is unknown, or not of its type; names the nearest.
    """
    own = [name for name in inspect.signature(kind).parameters if name not in {*_RESERVED, *fixed}]
    refuse_unknown(training, {*own, *more}, "training")
    arguments = typed(kind, {key: value for key, value in training.items() if key in own}, "training")
    further = {key: value for key, value in training.items() if key not in own}
    return kind(**arguments, **fixed, **({"train_options": further} if further else {}))


def typed(kind: Callable[..., Any], given: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Values that have the types of a constructor's arguments.

    Raises:
        ConfigError: One has not.
    """
    make: Any = kind
    hints = typing.get_type_hints(make.__init__ if isinstance(kind, type) else make)
    found = {}
    for key, value in given.items():
        adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
        refuse_switch(f"{section}.{key}", value, hints[key])
        try:
            found[key] = adapter.validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Input ")
            raise ConfigError(f"{section}.{key}: {message}, found {value!r}") from None
    return found


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], section: str) -> None:
    """Complain about the first key that is not known.

    Raises:
        ConfigError: There is one.
    """
    for key in given:
        if key not in known:
            raise ConfigError(f"{section}.{key}: there is no such setting{near(key, sorted(known))}")


@contextmanager
def complaints_of(section: str) -> Iterator[None]:
    """Complaints of the package's own checks with the section of the recipe before them."""
    try:
        yield
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{section}: {error}") from None
