"""What a pattern is: a hashable value that says which keys a query may see, and how such values combine.

Symbols: ``Lq``/``Lk`` query and key length, ``B'``/``H'`` the batch and heads that a pattern tells apart (1
when it treats all alike), ``N`` a number of tiles or blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .plan import BlockPlan, TilePlan


def check_whole(name: str, value: Any, low: int | None = None) -> None:
    """Raise ValueError for an argument that is no whole number, or too small a one."""
    least = "" if low is None else f" of at least {low}"
    if value is None or isinstance(value, bool | float | complex | str | Tensor):
        raise ValueError(f"{name}={value!r} must be a whole number{least}")
    if low is not None and value < low:
        raise ValueError(f"{name}={value} must be at least {low}")


def per_axis(value: int | bool | Sequence[Any], axes: int, name: str) -> tuple[Any, ...]:
    """One value for every axis: an ``int`` or ``bool`` is repeated, a sequence must have ``axes`` entries.

    Raises:
        ValueError: the sequence has another number of entries, or one is no whole number.
    """
    if isinstance(value, int):
        return (value,) * axes
    if not hasattr(value, "__len__"):
        raise ValueError(f"{name}={value!r} must be a whole number, or one for each axis")
    if len(value) != axes:
        raise ValueError(f"{name}={tuple(value)} has {len(value)} entries, the grid has {axes} axes")
    return tuple(value)


def tensor_code(value: Tensor, names: Iterator[str] | None) -> str:
    """The next of the names or, without names, type and size of a tensor."""
    if names is not None:
        return next(names)
    return f"<{str(value.dtype).removeprefix('torch.')} {'x'.join(map(str, value.shape))}>"


def _value_code(value: Any, same: bool, names: Iterator[str] | None) -> str:
    """The source text of one field's value; ``same`` writes a tuple of equal entries as one entry."""
    if isinstance(value, Tensor):
        return tensor_code(value, names)
    if isinstance(value, tuple):
        value = tuple(map(_number, value))
        return repr(value[0] if same and len(set(value)) == 1 else value)
    return repr(_number(value))


def _number(value: Any) -> Any:
    """A size that a compiler traced as a symbol becomes a number, which its graph then is for."""
    return index(value) if type(value) is int or isinstance(value, torch.SymInt) else value


Folding = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Sizes of a view of the length, two per axis of the grid; the order of those axes; how far each axis of the
grid is first moved back around its edges, or nothing."""


@dataclass(frozen=True, repr=False, eq=False)
class Pattern:
    """Base of all patterns. A subclass is a frozen dataclass that defines :meth:`visible`.

    Patterns compare and hash by their fields, so plans are remembered per value. Those that hold tensors
    (indices chosen from the data) compare by identity. ``a & b`` sees what both see, ``a | b`` what
    either does.
    """

    _per_axis: ClassVar[tuple[str, ...]] = ()
    """Fields with one value per axis of the grid."""

    def visible(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
        """Whether query ``q`` of head ``h`` in batch entry ``b`` sees key ``k``, element by element.

        Args:
            b, h: int64 indices (..., 1, 1).
            q: int64 query positions (..., m, 1).
            k: int64 key positions (..., 1, n).
            q_len, k_len: lengths of the two sequences.

        Returns:
            bool, broadcastable to (..., m, n).
        """
        raise NotImplementedError

    @property
    def batch(self) -> int:
        """Batch entries told apart (B'), 1 when all see alike."""
        return 1

    @property
    def heads(self) -> int:
        """Heads told apart (H'), 1 when all see alike."""
        return 1

    @property
    def interval(self) -> bool:
        """Whether :meth:`bounds` is exact: every query sees one unbroken run of keys."""
        return False

    @property
    def static(self) -> bool:
        """Whether the pattern is a value of its own, without tensors chosen from the data."""
        return not self.tensors()

    def check(self, q_len: int, k_len: int) -> None:
        """Raise ValueError when the pattern cannot describe these lengths."""

    def bounds(self, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
        """A run of keys [low, high) per query, two int64 (Lq,), outside of which nothing is visible."""
        return torch.zeros(q_len, dtype=torch.int64), torch.full((q_len,), k_len)

    def cover(self) -> tuple[Pattern, ...]:
        """Simpler patterns that make up this one, or itself: all must see for ``&``, any for the others."""
        return (self,)

    def partition(self, length: int) -> Tensor | None:
        """Groups of positions that see nearly the same keys, int64 (N, m) padded with -1; None for runs."""
        return None

    @property
    def origin(self) -> int:
        """Where query 0 stands among the keys of a sequence."""
        return 0

    def moved(self, offset: int) -> Pattern:
        """The same pattern where query 0 stands at key ``offset``, as with a cache of past keys.

        Raises:
            ValueError: the pattern does not count positions of a sequence.
        """
        if "offset" not in self._names:
            raise ValueError(f"{self!r} has no offset, so it cannot follow a cache of past keys")
        return replace(self, offset=self.origin + offset)  # type: ignore[call-arg]

    @property
    def anchored(self) -> bool:
        """Whether it matters where the sequence starts: False if only distances count."""
        return True

    def folding(self, length: int) -> Folding | None:
        """How to make the groups of :meth:`partition` by reshaping, for patterns whose groups see only
        themselves.

        Returns:
            Sizes into which the length splits, the order of those axes that puts groups first, and how far
            the grid is moved around its edges before; or None.
        """
        return None

    @property
    def parted(self) -> bool:
        """Whether queries of a group that :meth:`folding` makes may not see all of it."""
        return True

    def coordinates(self, length: int) -> Tensor:
        """Where each position lies, int64 (L, axes), as a relative-position bias measures it."""
        return torch.arange(length).unsqueeze(-1)

    def extent(self, q_len: int, k_len: int) -> tuple[int, ...]:
        """The largest distance per axis between a query and a key that it sees, in :meth:`coordinates`."""
        return (max(q_len + self.origin - 1, k_len - 1 - self.origin, 0),)

    def penalty(self, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor | None:
        """Where :attr:`penalty_value` is added to the logit of a visible pair (bool), or None for nowhere."""
        return None

    @property
    def penalty_value(self) -> float:
        """What is added to the logits that :meth:`penalty` marks."""
        return 0.0

    def phantoms(self, q_len: int) -> tuple[Tensor, Tensor] | None:
        """Zero keys that join a query's softmax with value zero, as at a zero-padded border.

        Returns:
            Their distances (query minus key) in :meth:`coordinates`, int64 (Lq, P, axes), and which of the P
            exist, bool (Lq, P); None when there are none.
        """
        return None

    def lists(self, index: Tensor, k_len: int) -> Tensor | None:
        """Keys that a group of queries may see, for patterns that hold index lists.

        Args:
            index: groups of queries, int64 (N, m), -1 for none.
            k_len: key length.

        Returns:
            int64 (B', H', N, n) padded with -1, without repetitions, or None when the pattern holds no list.
        """
        return None

    def mask(self, q_len: int, k_len: int, *, device: torch.device | str = "cpu") -> Tensor:
        """The truth: which pairs are visible.

        Returns:
            bool (Lq, Lk); (H', Lq, Lk) when heads differ; (B', H', Lq, Lk) when batch entries differ.

        Raises:
            ValueError: the lengths do not fit the pattern.
        """
        check_whole("q_len", q_len, 0)
        check_whole("k_len", k_len, 0)
        self.check(q_len, k_len)
        b = torch.arange(self.batch, device=device).view(-1, 1, 1, 1)
        h = torch.arange(self.heads, device=device).view(1, -1, 1, 1)
        q = torch.arange(q_len, device=device).view(-1, 1)
        k = torch.arange(k_len, device=device)
        seen = self.visible(b, h, q, k, q_len, k_len).expand(self.batch, self.heads, q_len, k_len)
        if self.batch != 1:
            return seen
        return seen[0] if self.heads != 1 else seen[0, 0]

    def tiles(
        self, q_len: int, k_len: int, bm: int = 64, bn: int = 64, device: torch.device | str = "cpu"
    ) -> TilePlan:
        """Which tiles of ``bm`` queries by ``bn`` keys hold a visible pair, by query tile and by key tile.

        Remembered per (pattern, lengths, tile, device) for static patterns.
        """
        from .plan import tile_plan

        return tile_plan(self, q_len, k_len, bm, bn, torch.device(device))

    def blocks(self, q_len: int, k_len: int, device: torch.device | str = "cpu") -> BlockPlan:
        """Groups of queries with the keys that they see between them: what the torch backend gathers."""
        from .plan import block_plan

        return block_plan(self, q_len, k_len, torch.device(device))

    def density(self, q_len: int, k_len: int) -> float:
        """The share of pairs that are visible, counted without a dense mask."""
        return self.tiles(q_len, k_len).density

    def plot(
        self,
        q_len: int | None = None,
        k_len: int | None = None,
        *,
        query: int | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the pattern; see :func:`graphrec.kernels.patterns.draw.plot`."""
        from .draw import plot

        return plot(self, q_len, k_len, query=query, ax=ax)

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor that the pattern holds, in the order of :meth:`code`."""
        values = [getattr(self, name) for name in self._names]
        return tuple(one for one in values if isinstance(one, Tensor))

    def code(self, names: Iterator[str] | None = None) -> str:
        """The expression that makes this pattern; tensors appear under their ``names``, in the order of
        :meth:`tensors`.
        """
        parts = []
        for name in self._names:
            value, same = getattr(self, name), name in self._per_axis
            optional = hasattr(type(self), name)
            default = getattr(type(self), name, None)
            if (
                optional
                and not isinstance(value, Tensor)
                and value in (default, (default,) * len(self._grid))
            ):
                continue
            parts.append((f"{name}=" if optional else "") + _value_code(value, same, names))
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def _names(self) -> tuple[str, ...]:
        """The fields, in the order of the constructor."""
        return self.__match_args__  # type: ignore[attr-defined, no-any-return]

    @property
    def _grid(self) -> tuple[int, ...]:
        """The grid of patterns that have one."""
        return ()

    def __repr__(self) -> str:
        return self.code()

    def __and__(self, other: Pattern) -> Pattern:
        from .combine import And

        return And(*_flat(And, self, other)) if isinstance(other, Pattern) else NotImplemented

    def __or__(self, other: Pattern) -> Pattern:
        from .combine import Or

        return Or(*_flat(Or, self, other)) if isinstance(other, Pattern) else NotImplemented


def _flat(kind: type[Any], *patterns: Pattern) -> list[Pattern]:
    """``(a & b) & c`` is one conjunction of three."""
    return [leaf for one in patterns for leaf in (one.parts if isinstance(one, kind) else (one,))]
