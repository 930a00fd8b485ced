"""Patterns made of patterns: both, either, and another one for each head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Pattern


def _agree(patterns: tuple[Pattern, ...], what: str) -> int:
    """The size of a dimension that all parts share, where 1 fits all."""
    sizes = {getattr(one, what) for one in patterns} - {1}
    if len(sizes) > 1:
        raise ValueError(f"patterns over different numbers of {what} cannot combine: {sorted(sizes)}")
    return sizes.pop() if sizes else 1


def _only(patterns: tuple[Pattern, ...], has: Callable[[Pattern], bool], what: str) -> Pattern | None:
    """The one part that has something that does not combine."""
    owners = [one for one in patterns if has(one)]
    if owners and len(patterns) > 1:
        raise ValueError(f"{owners[0]!r} has {what}, which has no meaning inside a combination")
    return owners[0] if owners else None


@dataclass(frozen=True, repr=False, init=False)
class _Combined(Pattern):
    """Parts under one boolean operation."""

    parts: tuple[Pattern, ...]

    def __init__(self, *parts: Pattern) -> None:
        for one in parts:
            if not isinstance(one, Pattern):
                raise ValueError(f"{type(self).__name__} takes patterns, got {type(one).__name__}")
        object.__setattr__(self, "parts", parts)
        _agree(parts, "batch")
        _agree(parts, "heads")
        for one in parts:
            if getattr(one, "border", "mask") != "mask":
                raise ValueError(
                    f"{one!r} changes logits at its border, which has no meaning inside a combination"
                )

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(one for part in self.parts for one in part.tensors())

    @property
    def batch(self) -> int:
        return _agree(self.parts, "batch")

    @property
    def heads(self) -> int:
        return _agree(self.parts, "heads")

    def check(self, q_len: int, k_len: int) -> None:
        for one in self.parts:
            one.check(q_len, k_len)

    def cover(self) -> tuple[Pattern, ...]:
        return self.parts

    def partition(self, length: int) -> Tensor | None:
        return next((found for one in self.parts if (found := one.partition(length)) is not None), None)

    @property
    def origin(self) -> int:
        return next((one.origin for one in self.parts if one.origin), 0)

    @property
    def anchored(self) -> bool:
        return any(one.anchored for one in self.parts)

    def moved(self, offset: int) -> Pattern:
        return type(self)(*(one.moved(offset) for one in self.parts))

    def coordinates(self, length: int) -> Tensor:
        """Those of the part with most axes; parts that measure differently on as many axes do not combine."""
        found = [one.coordinates(length) for one in self.parts]
        best = max(found, key=lambda one: one.shape[1])
        if any(one.shape == best.shape and not torch.equal(one, best) for one in found):
            raise ValueError(
                f"the parts of {self!r} measure positions differently: give the bias as a tensor"
            )
        return best

    def _extents(self, q_len: int, k_len: int) -> list[tuple[int, ...]]:
        axes = self.coordinates(1 if q_len == 0 else q_len).shape[1]
        found = [one.extent(q_len, k_len) for one in self.parts if one.coordinates(q_len).shape[1] == axes]
        whole = self.coordinates(q_len)
        spread = tuple(int(step) for step in (whole.amax(0) - whole.amin(0))) if len(whole) else (0,) * axes
        return found + [spread] * (len(self.parts) > len(found))

    def _symbol(self, names: Iterator[str] | None, symbol: str, weak: type[Pattern] | None) -> str:
        texts = [
            f"({one.code(names)})" if weak and isinstance(one, weak) else one.code(names)
            for one in self.parts
        ]
        return f" {symbol} ".join(texts)


@dataclass(frozen=True, repr=False, init=False)
class And(_Combined):
    """Visible where every part sees: ``Packed(offsets) & Causal()``."""

    @property
    def interval(self) -> bool:
        return all(one.interval for one in self.parts)

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = self.parts[0].visible(b, h, q, k, q_len, k_len)
        for one in self.parts[1:]:
            seen = seen & one.visible(b, h, q, k, q_len, k_len)
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        each = [one.bounds(q_len, k_len) for one in self.parts]
        return torch.stack([low for low, _ in each]).amax(0), torch.stack([high for _, high in each]).amin(0)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(map(min, zip(*self._extents(q_len, k_len), strict=True)))

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        found = [keys for one in self.parts if (keys := one.lists(index, k_len)) is not None]
        return min(found, key=lambda keys: keys.shape[-1]) if found else None

    def code(self, names: Iterator[str] | None = None) -> str:
        return self._symbol(names, "&", Or)


@dataclass(frozen=True, repr=False, init=False)
class Or(_Combined):
    """Visible where any part sees: ``Window(256, 256) | Global(1)``."""

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        seen = self.parts[0].visible(b, h, q, k, q_len, k_len)
        for one in self.parts[1:]:
            seen = seen | one.visible(b, h, q, k, q_len, k_len)
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        each = [one.bounds(q_len, k_len) for one in self.parts]
        return torch.stack([low for low, _ in each]).amin(0), torch.stack([high for _, high in each]).amax(0)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(map(max, zip(*self._extents(q_len, k_len), strict=True)))

    def code(self, names: Iterator[str] | None = None) -> str:
        return self._symbol(names, "|", None)


@dataclass(frozen=True, repr=False, init=False)
class PerHead(_Combined):
    """One pattern per head, as in DuoAttention (arXiv:2410.10819): ``PerHead(Causal(), Streaming(4, 256))``.

    Raises:
        ValueError: a part tells heads apart itself.
    """

    def __init__(self, *parts: Pattern) -> None:
        super().__init__(*parts)
        if not parts or any(one.heads > 1 for one in parts):
            raise ValueError(
                "PerHead takes one pattern for each head, none of which tells heads apart itself"
            )

    @property
    def heads(self) -> int:
        return len(self.parts)

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        b, h, q, k = torch.broadcast_tensors(b, h, q, k)
        seen = torch.zeros(h.shape, dtype=torch.bool, device=h.device)
        for one in dict.fromkeys(self.parts):
            mine = [head for head, other in enumerate(self.parts) if other == one]
            seen |= torch.isin(h, torch.tensor(mine, device=h.device)) & one.visible(b, h, q, k, q_len, k_len)
        return seen

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        return Or.bounds(self, q_len, k_len)  # type: ignore[arg-type]

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        return tuple(map(max, zip(*self._extents(q_len, k_len), strict=True)))

    def code(self, names: Iterator[str] | None = None) -> str:
        return f"PerHead({', '.join(one.code(names) for one in self.parts)})"
