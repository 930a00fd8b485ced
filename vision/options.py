"""The options of models: which there are, and what they may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from torch import nn

from graphrec.errors import ConfigError


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
        fits, wanted = _VALUES.get(key, (None, ""))
        if fits is not None and not fits(value):
            raise ConfigError(f"{key}: {value!r} is not allowed; it is {wanted}")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _size(value: Any) -> bool:
    """Whether a value is a side, or height and width; the model says which sizes it takes."""
    both = value if isinstance(value, tuple | list) else (value,)
    return len(both) in (1, 2) and all(isinstance(one, Integral) for one in both)


def _share(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < 1


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "num_classes": (lambda value: _whole(value, 0), "a whole number, 0 for none"),
    "in_chans": (lambda value: _whole(value, 1), "a whole number from 1 up"),
    "img_size": (_size, "a number of pixels, or height and width"),
    "drop_rate": (_share, "at least 0 and below 1"),
    "drop_path_rate": (_share, "at least 0 and below 1"),
}
"""Options that all systems have: what they may be, in code and in words."""


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
