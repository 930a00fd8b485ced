"""What is wrong with a recipe, in one line: the key, what was found and what would be right."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from graphrec.errors import ConfigError


def near(name: object, known: Iterable[str]) -> str:
    """``"; did you mean X?"`` where a known name is near, then all that are known."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    listed = f" ({', '.join(names)})" if names else " (nor any other)"
    return (f"; did you mean {close[0]}?" if close else "") + listed


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """All complaints of pydantic, each with its key in dots."""
    found = dict.fromkeys(_one(dict(one), model, prefix) for one in error.errors())
    return "; ".join(found)


def _one(error: dict[str, Any], model: type[BaseModel], prefix: str) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"{dotted(prefix, *path)}: there is no such key{near(path[-1], _fields(model, path[:-1]))}"
    if error["type"] == "missing":
        return f"{dotted(prefix, *path)}: is missing"
    path = [part for i, part in enumerate(path) if not i or not _is_choice(part)]
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{dotted(prefix, *path)}: {message}, found {error['input']!r}"


def _is_choice(part: str) -> bool:
    """Whether pydantic put it into the path to say which member of a union it tried."""
    return part in ("int", "str", "float", "bool") or "[" in part


def refuse_switch(path: str, value: Any, annotation: Any) -> None:
    """Refuse true and false where a number is meant, of which pydantic would make 1 and 0.

    Raises:
        ConfigError: It is one.
    """
    if isinstance(value, bool) and not {bool, Any} & {annotation, *typing.get_args(annotation)}:
        raise ConfigError(f"{path}: should not be true or false, found {value!r}")


def dotted(*parts: str) -> str:
    """``model.options.layers``."""
    return ".".join(part for part in parts if part)


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """Keys that a mapping inside a model takes."""
    for part in path:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with keys in dots; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = dotted(prefix, str(key))
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat
