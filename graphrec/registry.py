"""The registry of published systems: one card each, filled by a decorator.

`create_model("fcn", spec)` builds a model, `list_models("*int*", task="ctr")` finds names, `card("fcn")`
says what is published, what was verified here and how.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from graphrec.errors import ConfigError, GraphrecError

_MODULES: dict[str, tuple[str, ...]] = {
    "graphrec.ctr": ("ctr",),
    "graphrec.graph.cards": ("graph", "node"),
    "graphrec.graph.gsm.cards": ("graph", "node"),
    "graphrec.graph.hypergraph.stages": ("hypergraph",),
    "graphrec.graph.eeg.histn": ("eeg",),
    "graphrec.graph.relations.cards": ("relation",),
    "graphrec.vision": ("vision",),
}
"""Packages whose import fills the registry, with the tasks of their models. A package is imported when a task
of its own is asked for, or a name that those before it do not know: PyG takes seconds."""


@dataclass(frozen=True)
class Variant:
    """One published size of a system.

    Args:
        options: Keyword arguments of the system's class.
        size: Side of the images in pixels.
        parameters: Published number of parameters in millions; None for a size made for tests.
        gflops: Published billions of multiplications with addition for one image, which papers call FLOPs.
        top1: Published accuracy on ImageNet-1K in percent.
        classes: Classes of the published weights.
        weights: URL of the official checkpoint, or "".
        cfg: What differs from timm's default configuration: mean, std, crop_pct, interpolation,
            min_input_size where that is above 96 pixels.
        note: Why a count differs from the published one.
        counted: ``gflops`` by `graphrec.vision.count_operations`, where they differ by more than 3 %.
    """

    options: Mapping[str, Any]
    size: int = 224
    parameters: float | None = None
    gflops: float | None = None
    top1: float | None = None
    classes: int = 1000
    weights: str = ""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    counted: float | None = None

    @property
    def published(self) -> bool:
        """Whether the variant is one of a paper, not one made for tests."""
        return self.parameters is not None


@dataclass(frozen=True)
class Card:
    """What is known of one system.

    Args:
        name: The name that `create_model` takes.
        task: ``"ctr"``, ``"graph"``, ``"vision"`` ...
        title: The system and the paper's title.
        paper: arXiv identifier or DOI as a URL.
        code: Official repository, or "" when none exists.
        licence: Licence of the official code, or "".
        published: Published figures, e.g. ``{"MovieLens-1M AUC": 0.9074}``.
        verified: What was checked here, each with the test that checks it:
            ``{"parity with FuxiCTR": "tests/ctr/test_parity.py::test_autoint"}``.
        differs: What differs from the paper or the official code.
        multi_label: Whether the model takes several labels at once.
        uses: Field kinds that the model treats specially, e.g. ("sequence",).
        training: Fields of `TrainConfig` that suit the model better than the package's defaults; the
            estimator takes them where the user says nothing.
        variants: Published sizes by name, where a system has several.
    """

    name: str
    task: str
    title: str
    paper: str
    code: str = ""
    licence: str = ""
    published: dict[str, float] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)
    differs: str = ""
    multi_label: bool = True
    uses: tuple[str, ...] = ()
    training: dict[str, float] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)


_T = TypeVar("_T", bound=Callable[..., Any])
_cards: dict[str, Card] = {}
_builders: dict[str, Callable[..., Any]] = {}


def register_model(card: Card) -> Callable[[_T], _T]:
    """Class or function decorator that makes ``card.name`` known to `create_model`."""

    def decorate(builder: _T) -> _T:
        if card.name in _cards:
            raise ValueError(f"model {card.name!r} is registered twice")
        _cards[card.name], _builders[card.name] = card, builder
        return builder

    return decorate


def _load(*, task: str | None = None, name: str | None = None) -> None:
    """Import the packages of a task, or all until a name is known, or simply all."""
    for module, tasks in _MODULES.items():
        if name in _cards:
            return
        if task is None or task in tasks:
            importlib.import_module(module)


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Registered names that match a shell pattern, sorted; ``task`` narrows them."""
    _load(task=task)
    return sorted(n for n, c in _cards.items() if fnmatch.fnmatch(n, pattern) and task in (None, c.task))


def card(name: str) -> Card:
    """The card of a model.

    Raises:
        ConfigError: The name is unknown; the message lists the nearest names.
    """
    if not isinstance(name, str):
        raise ConfigError(f"model: should be a name, got {name!r}; `graphrec models` lists all")
    _load(name=name)
    if name not in _cards:
        import difflib

        near = difflib.get_close_matches(name, _cards, n=3)
        hint = f" did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"model: there is no {name!r};{hint} `graphrec models` lists all")
    return _cards[name]


def model_options(name: str) -> dict[str, Any]:
    """The keyword options that a model takes, with their defaults."""
    card(name)
    parameters = inspect.signature(_builders[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def create_model(name: str, *args: Any, **options: Any) -> Any:
    """Build a registered model; ``options`` are the keyword arguments of its class.

    Raises:
        ConfigError: The name, or an option, is unknown, or an option cannot be what it is.
    """
    known = model_options(name)
    for key in options:
        if key not in known:
            raise ConfigError(f"{key}: {name} has no such option; it takes {', '.join(sorted(known))}")
    try:
        return _builders[name](*args, **options)
    except GraphrecError:
        raise
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        if not options:  # of which one cannot be wrong
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ConfigError(f"{name}: cannot be made with {given} ({' '.join(str(error).split())})") from error
