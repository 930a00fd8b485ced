"""Names that a recipe may use, each a function whose keyword-only arguments are its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from graphrec.errors import ConfigError

from .complaints import dotted, explain, near, refuse_switch

_F = TypeVar("_F", bound=Callable[..., Any])
KINDS = {
    "graphs": "many graphs",
    "graph": "one graph",
    "hypergraph": "a hypergraph",
    "windows": "windows of EEG",
    "relations": "texts with entities",
    "table": "a table",
    "images": "images",
}
"""What a source gives and a task takes, and how messages call it."""


@dataclass(frozen=True)
class Entry:
    """A function under a name.

    Attributes:
        name: In recipes.
        function: What is called.
        options: Its keyword-only arguments as a model.
        kinds: Keys of `KINDS`: what a source gives, or what a split divides.
    """

    name: str
    function: Callable[..., Any]
    options: type[BaseModel]
    kinds: tuple[str, ...]

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


class Vocabulary:
    """Functions by name, chosen in a recipe by a mapping of the name and the function's options.

    Args:
        section: The mapping's key in a recipe, such as ``"data"``.
        key: The key of the name in it, such as ``"source"``.
    """

    def __init__(self, section: str, key: str) -> None:
        self.section, self.key = section, key
        self.entries: dict[str, Entry] = {}

    def register(self, *kinds: str) -> Callable[[_F], _F]:
        """Decorator that makes a function known under its own name."""

        def decorate(function: _F) -> _F:
            unknown = [kind for kind in kinds if kind not in KINDS]
            if function.__name__ in self.entries or unknown or not kinds:
                raise ValueError(f"{self.key} {function.__name__!r} is registered twice, or of kinds {kinds}")
            if self.key in inspect.signature(function).parameters:
                raise ValueError(
                    f"{function.__name__}: an option may not be called {self.key!r}, as the name is"
                )
            entry = Entry(function.__name__, function, _options(function), kinds)
            self.entries[entry.name] = entry
            return function

        return decorate

    def of(self, kind: str) -> list[str]:
        """Names for a kind."""
        return [name for name, entry in self.entries.items() if kind in entry.kinds]

    def find(self, section: Mapping[str, Any]) -> Entry:
        """The entry that a section names.

        Raises:
            ConfigError: It names none, or one that is unknown.
        """
        path, name = dotted(self.section, self.key), section.get(self.key)
        if name is None:
            raise ConfigError(f"{path}: is missing; one of {', '.join(self.entries)}")
        if not isinstance(name, str) or name not in self.entries:
            raise ConfigError(f"{path}: there is no {name!r}{near(name, self.entries)}")
        return self.entries[name]

    def check(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """The section with its defaults, the name first.

        Raises:
            ConfigError: The name or an option is unknown or wrong.
        """
        entry = self.find(section)
        given = {key: value for key, value in section.items() if key != self.key}
        for key, field in entry.options.model_fields.items():
            refuse_switch(dotted(self.section, key), given.get(key), field.annotation)
        try:
            options = entry.options.model_validate(given)
        except ValidationError as error:
            raise ConfigError(explain(error, entry.options, self.section)) from None
        return {self.key: entry.name, **options.model_dump(mode="json")}

    def call(self, section: Mapping[str, Any], *arguments: Any) -> Any:
        """Call what a section names with its options."""
        options = {key: value for key, value in self.check(section).items() if key != self.key}
        return self.find(section).function(*arguments, **options)


def _options(function: Callable[..., Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        one.name: (one.annotation, ... if one.default is one.empty else one.default)
        for one in inspect.signature(function).parameters.values()
        if one.kind is one.KEYWORD_ONLY
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
    return create_model(function.__name__, __config__=config, **fields)
