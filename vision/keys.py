"""From an official checkpoint's key names to ours and back, as a list of rules.

A template such as ``layers.{i}.downsample`` stands for a beginning of a key, up to a dot or the end; ``{i}``
is a number, and ``{i+1}`` on the other side shifts it. The first rule that fits decides, in either direction;
a key that no rule fits keeps its name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from graphrec.errors import RunError

_PLACE = re.compile(r"\{(\w+)([+-]\d+)?\}")


@dataclass(frozen=True)
class Convert:
    """How a value changes between the two sides, e.g. ``Convert(torch.t, torch.t)``."""

    to_ours: Callable[[Tensor], Tensor]
    to_official: Callable[[Tensor], Tensor]


LINEAR_AS_CONV = Convert(lambda w: w[:, :, None, None], lambda w: w.flatten(1))
"""The weight of an official linear layer that is a 1x1 convolution here."""
CONV_AS_LINEAR = Convert(lambda w: w.flatten(1), lambda w: w[:, :, None, None])
"""The weight of an official 1x1 convolution that is a linear layer here."""


@dataclass(frozen=True)
class Rename:
    """One key to one key."""

    official: str
    ours: str
    value: Convert | None = None


@dataclass(frozen=True)
class Joined:
    """Several official tensors that are one here, along an axis, or the reverse: one side is a tuple.

    ``Joined(("attn.q", "attn.kv"), "attn.qkv", parts=(1, 2))``: ``parts`` are the relative sizes.
    """

    official: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    parts: tuple[int, ...]
    dim: int = 0


@dataclass(frozen=True)
class KeyMap:
    """The mapping of one system.

    Args:
        rules: The first that fits decides.
        drop: Shell patterns of official keys that hold nothing learned, such as index buffers.
        rebuild: Makes the dropped tensors again, by official name, from the model's state with official
            names; without it they are left out of what is saved.
        resize: Last part of a name of ours -> function (value, target) that fits a table of another size
            into the model, as the official code does it. If the module that holds the table has an attribute
            ``grid``, rows and columns of what it is for, the function gets that as well, by its name.
    """

    rules: tuple[Rename | Joined, ...] = ()
    drop: tuple[str, ...] = ()
    rebuild: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    resize: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state with official names as one with ours.

        Raises:
            RunError: Two keys became one, or a tensor lacks the others that it joins with.
        """
        kept = {
            key: value
            for key, value in state.items()
            if not any(fnmatch.fnmatchcase(key, one) for one in self.drop)
        }
        return _mapped(kept, self.rules, forward=True)

    def to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state with our names as one with the official names."""
        out = _mapped(state, self.rules, forward=False)
        return out if self.rebuild is None else {**out, **self.rebuild(out)}

    def official_name(self, name: str) -> str:
        """What a key of ours is called officially, for messages."""
        for rule in self.rules:
            for side in _sides(rule.ours):
                rest = _match(side, name)
                if rest is not None:
                    return ", ".join(_fill(one, *rest) for one in _sides(rule.official))
        return name


def _sides(side: str | tuple[str, ...]) -> tuple[str, ...]:
    return (side,) if isinstance(side, str) else side


@cache
def _compiled(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, int], ...]]:
    """The pattern of a template, and name and shift of each of its places."""
    pieces, places, start = [], [], 0
    for found in _PLACE.finditer(template):
        pieces.append(re.escape(template[start : found.start()]) + r"(\d+)")
        places.append((found[1], int(found[2] or 0)))
        start = found.end()
    pieces.append(re.escape(template[start:]))
    return re.compile("".join(pieces) + r"(\..*)?"), tuple(places)


def _match(template: str, key: str) -> tuple[dict[str, int], str] | None:
    """The numbers in a key that a template fits, and the rest of the key."""
    pattern, places = _compiled(template)
    found = pattern.fullmatch(key)
    if found is None:
        return None
    numbers: dict[str, int] = {}
    for text, (name, shift) in zip(found.groups()[:-1], places, strict=True):
        number = int(text) - shift
        if number < 0 or numbers.setdefault(name, number) != number:
            return None
    return numbers, found.groups()[-1] or ""


def _fill(template: str, numbers: Mapping[str, int], rest: str) -> str:
    filled = _PLACE.sub(lambda place: str(numbers[place[1]] + int(place[2] or 0)), template)
    return filled + rest


def _mapped(
    state: Mapping[str, Tensor], rules: Iterable[Rename | Joined], *, forward: bool
) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    waiting: dict[tuple[str, Joined], dict[int, Tensor]] = {}
    for key, value in state.items():
        for name, new in _renamed(key, value, rules, forward, waiting):
            if name in out:
                raise RunError(f"{key}: two keys of the checkpoint became {name}")
            out[name] = new
    for (name, rule), pieces in waiting.items():
        if len(pieces) != len(rule.parts):
            raise RunError(
                f"{name}: needs {len(rule.parts)} tensors of the checkpoint, {len(pieces)} are there"
            )
        out[name] = torch.cat([pieces[place] for place in range(len(rule.parts))], rule.dim)
    return out


def _renamed(
    key: str,
    value: Tensor,
    rules: Iterable[Rename | Joined],
    forward: bool,
    waiting: dict[tuple[str, Joined], dict[int, Tensor]],
) -> list[tuple[str, Tensor]]:
    """Names and values that a key becomes; none while it waits for what it joins with."""
    for rule in rules:
        source, target = (rule.official, rule.ours) if forward else (rule.ours, rule.official)
        for place, side in enumerate(_sides(source)):
            found = _match(side, key)
            if found is None:
                continue
            names = [_fill(one, *found) for one in _sides(target)]
            if isinstance(rule, Rename):
                change = rule.value and (rule.value.to_ours if forward else rule.value.to_official)
                return [(names[0], change(value) if change else value)]
            if len(names) == 1:
                waiting.setdefault((names[0], rule), {})[place] = value
                return []
            unit = value.shape[rule.dim] // sum(rule.parts)
            pieces = value.split([unit * part for part in rule.parts], rule.dim)
            return list(zip(names, pieces, strict=True))
    return [(key, value)]


__all__ = ["CONV_AS_LINEAR", "LINEAR_AS_CONV", "Convert", "Joined", "KeyMap", "Rename"]
