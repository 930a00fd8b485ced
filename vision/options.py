"""The options of models: which there are, and what they may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from torch import nn

from graphrec.errors import ConfigError, GraphrecError


def check_options(name: str, model: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Refuse what a system's class does not take.

    Raises:
        ConfigError: Names the option, its value and what would be right.
    """
    parameters = inspect.signature(model).parameters.values()
    known = sorted(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{key}: {name} has no such option; it takes {', '.join(known)}")
        check_value(key, value)


def check_value(key: str, value: Any) -> None:
    """Refuse a value of an option that all systems have.

    Raises:
        ConfigError: Names the option, its value and what would be right.
    """
    fits, wanted = _VALUES.get(key, (None, ""))
    if fits is not None and not fits(value):
        raise ConfigError(f"{key}: {value!r} is not allowed; it is {wanted}")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _size(value: Any) -> bool:
    """Whether a value is a side, or height and width; the model says which sizes it takes."""
    pair = isinstance(value, tuple | list) and len(value) == 2
    return all(isinstance(one, Integral) for one in (value if pair else (value,)))


def _sides(value: Any) -> bool:
    pair = isinstance(value, tuple | list) and len(value) == 2
    return all(_whole(one, 1) for one in (value if pair else (value,)))


def _share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (lambda value: _whole(value, 0), "a whole number, 0 for none"),
    "in_chans": (lambda value: _whole(value, 1), "a whole number from 1 up"),
    "img_size": (_size, "a number of pixels, or height and width"),
    "patch_size": (_sides, "a whole number from 1 up, or two"),
    "window_size": (_sides, "a whole number from 1 up, or two"),
    "drop_rate": (_share, "at least 0 and below 1"),
    "drop_path_rate": (_share, "at least 0 and below 1"),
}
"""Options that all systems have: what they may be, in code and in words."""


def check_stages(model: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Refuse options that have one entry a stage and do not agree on how many stages there are.

    Args:
        model: The class; an option has one entry a stage if its default has as many as that of ``depths``.
        options: Those of the variant and those given over them.

    Raises:
        ConfigError: Names two options and their lengths.
    """
    defaults = {p.name: p.default for p in inspect.signature(model).parameters.values()}
    depths = defaults.get("depths")
    if not isinstance(depths, tuple):
        return
    found = {**defaults, **options}
    for key, default in defaults.items():
        if not isinstance(default, tuple) or len(default) != len(depths):
            continue
        value = found[key]
        if not isinstance(value, tuple | list) or not len(value):
            raise ConfigError(f"{key}: {value!r} is not allowed; it is a sequence with one entry a stage")
        if len(value) != len(found["depths"]):
            raise ConfigError(
                f"{key}: {tuple(value)} has {len(value)} entries, and depths {len(found['depths'])}; both "
                "have one for each stage"
            )


_OF_VALUES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
)
"""What torch and Python raise of values that no layer can have."""


@contextmanager
def complaints_of_values(name: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Put what torch says of values that no layer can have in one line with the options that were given.

    Raises:
        ConfigError: Names the model and the options.
    """
    try:
        yield
    except GraphrecError:
        raise
    except _OF_VALUES as error:
        if not given:  # of which none can be wrong
            raise
        options = ", ".join(f"{key}={value!r}" for key, value in given.items())
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{name}: cannot be made with {options} ({reason})") from error


POOLING = "is not avg, max, avgmax, catavgmax or ''"
"""What timm's pooling can be."""


@contextmanager
def complaints_of_timm(sign: str, key: str, wrong: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Put an assertion of timm's that begins with ``sign`` in our words.

    Raises:
        ConfigError: Names the option and its value.
    """
    try:
        yield
    except AssertionError as error:
        if str(error).startswith(sign):
            raise ConfigError(f"{key}: {given.get(key)!r} {wrong}") from error
        raise
