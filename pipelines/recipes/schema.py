"""What a recipe says, checked: `Recipe`."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from graphrec.errors import ConfigError

from .complaints import dotted, explain, near
from .sources import SOURCES
from .splits import SPLITS

_MOST = 10_000
_VARIED = ("model", "training", "split")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(_Part):
    """Which model, and its keyword arguments."""

    name: str = Field(min_length=1)
    options: dict[str, Any] = {}


class Repeat(_Part):
    """How often: every seed on every split.

    Args:
        seeds: So many, from 0 on, or a list of them.
        splits: Numbers of the splits to take, of those that the split section gives; ``"all"`` for all.
    """

    seeds: int | list[int] = 1
    splits: Literal["all"] | list[int] = "all"

    @field_validator("seeds", "splits", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) for one in listed):
            raise ValueError("must be numbers, not true or false")
        return value

    @field_validator("splits")
    @classmethod
    def _different(cls, value: Any) -> Any:
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("must be 'all', or a list of different numbers of splits")
        return value

    @field_validator("seeds")
    @classmethod
    def _some(cls, value: int | list[int]) -> int | list[int]:
        if isinstance(value, int) and value > _MOST:
            raise ValueError(f"must be at most {_MOST} seeds, from 0 on; one alone is a list, [{value}]")
        listed = value if isinstance(value, list) else list(range(value))
        if not listed or min(listed) < 0 or len(set(listed)) < len(listed):
            raise ValueError("must be a number from 1 up, or a list of different seeds from 0 up")
        return value

    @property
    def seed_list(self) -> list[int]:
        """The seeds."""
        return self.seeds if isinstance(self.seeds, list) else list(range(self.seeds))


class Recipe(_Part):
    """A scripted training: data, split, model, settings, repetitions and pictures.

    Args:
        title: What it is, in a line.
        task: Name of a task; `graphrec.running.TASKS` has them.
        about: More about it.
        paper: Link to the publication that it follows.
        data: ``source``, a name of `SOURCES`, and its options; ``origin`` says where the files can be had.
        split: ``kind``, a name of `SPLITS`, and its options.
        model: ``name`` and ``options`` of the model.
        training: Settings of the estimator and the trainer.
        repeat: Seeds and splits.
        metric: The one that the summary is about, as ``accuracy`` or ``test/accuracy``.
        figures: Pictures that the task can draw; ``"all"`` for all of them.
        save: Of which repetitions the fitted model is kept: ``"first"`` of every variant, ``"all"`` or
            ``"none"``.
        published: What the paper reports for ``metric``, by variant (or model).
        variants: Name -> keys (in dots, below model, training and split) that it changes.
        grid: Keys (as in ``variants``) -> values; every combination becomes a variant called by its values,
            such as ``gcn-mean``. A checked recipe has them among its variants.
        chosen: Variants that run unless others are asked for; all by default.
    """

    title: str = Field(min_length=1)
    task: str = Field(min_length=1)
    about: str = ""
    paper: str = ""
    data: dict[str, Any]
    split: dict[str, Any]
    model: ModelPart
    training: dict[str, Any] = {}
    repeat: Repeat = Repeat()
    metric: str = Field("accuracy", min_length=1)
    figures: Literal["all"] | list[str] = "all"
    save: Literal["first", "all", "none"] = "first"
    published: dict[str, float] = {}
    variants: dict[str, dict[str, Any]] = {}
    grid: dict[str, list[Any]] = {}
    chosen: list[str] = []

    @field_validator("published", mode="before")
    @classmethod
    def _figures(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(isinstance(one, bool) for one in value.values()):
            raise ValueError("must be numbers, not true or false")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check a mapping.

        Raises:
            ConfigError: Names the key, what was found and what would be right.
        """
        try:
            found = cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from None
        origin = found.data.get("origin", "")
        if not isinstance(origin, str):
            raise ConfigError(f"data.origin: should be a text, found {origin!r}")
        _check_fit(found.data, found.split)
        data = SOURCES.check({key: value for key, value in found.data.items() if key != "origin"})
        split = SPLITS.check(found.split)
        variants = {**found.variants, **_expanded(found.grid)}
        update = {"data": {**data, "origin": origin}, "split": split, "variants": variants, "grid": {}}
        full = found.model_copy(update=update)
        full._check_variants()
        return full

    def _check_variants(self) -> None:
        for name in self.variants:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"variants.{name}: a name has letters, digits and ._+- only; it becomes a folder"
                )
            self.variant(name)
        self.choose(self.chosen)
        for name in self.published:
            if name not in self.names:
                raise ConfigError(f"published.{name}: there is no such variant{near(name, self.names)}")

    @property
    def names(self) -> list[str]:
        """The variants' names; without any the model's alone."""
        return list(self.variants) or [self.model.name]

    def choose(self, names: Sequence[str]) -> list[str]:
        """The variants that run: those named, else those that the recipe chooses; ``all`` is all.

        Raises:
            ConfigError: A name is unknown.
        """
        wanted = list(names) or self.chosen or self.names
        if wanted == ["all"]:
            return self.names
        for name in wanted:
            if name not in self.names:
                raise ConfigError(f"variants: there is no {name!r}{near(name, self.names)}")
        return list(dict.fromkeys(wanted))

    def variant(self, name: str) -> Recipe:
        """The recipe of one variant, without variants.

        Raises:
            ConfigError: It changes what it may not, or wrongly.
        """
        plain = {**self.to_dict(), "variants": {}, "chosen": [], "published": {}}
        for key in self.variants.get(name, {}):
            if key.split(".")[0] not in _VARIED:
                raise ConfigError(
                    f"variants.{name}: changes {key!r}; a variant may change keys below {', '.join(_VARIED)}"
                )
        try:
            return Recipe.of(changed(plain, self.variants.get(name, {})))
        except ConfigError as error:
            raise ConfigError(f"variants.{name}: {error}" if name in self.variants else str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, in the order of the class."""
        return copy.deepcopy(self.model_dump(mode="json"))


def _expanded(grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """A variant for every combination of a grid's values."""
    if not grid:
        return {}
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return {"-".join(str(value) for value in one.values()): one for one in combinations}


def _check_fit(data: Mapping[str, Any], split: Mapping[str, Any]) -> None:
    """Refuse a split of another kind of data."""
    [kind], kinds = SOURCES.find(data).kinds, SPLITS.find(split).kinds
    if kind not in kinds:
        raise ConfigError(
            f"split.kind: {split['kind']!r} does not divide what {data['source']!r} gives; one of "
            f"{', '.join(SPLITS.of(kind))}"
        )


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy with some keys, given in dots, set to other values.

    Raises:
        ConfigError: A key leads below something that is no mapping.
    """
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *path, last = key.split(".")
        place = result
        for i, part in enumerate(path):
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {dotted(*path[: i + 1])} is {place!r}, which has no keys below it")
        place[last] = value
    return result
