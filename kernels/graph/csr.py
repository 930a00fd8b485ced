"""A graph as compressed rows, with its transpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


def rows_of(degree: Tensor, edges: int) -> Tensor:
    """The row of every edge, (E,), in the type of ``degree``, the edges of every row."""
    nodes = torch.arange(degree.shape[0], device=degree.device, dtype=degree.dtype)
    return torch.repeat_interleave(nodes, degree, output_size=edges)


@dataclass(frozen=True, eq=False)
class CSR:
    """Edges grouped by the node that receives them.

    Edge ``e`` of row ``i`` (``ptr[i] <= e < ptr[i + 1]``) comes from column ``index[e]``. Edge features
    follow this order. The order of edges within a row is free, and an edge may occur twice.

    Attributes:
        ptr: (rows + 1,), from 0 to the number of edges, not decreasing.
        index: (E,), 0 to ``columns - 1``.
        columns: nodes on the sending side.
        rows: nodes on the receiving side.
        edges: number of edges.

    All are int32 if ``ptr`` and ``index`` both are, which halves what the kernels read of them, else int64.

    Raises:
        ValueError: dtypes, shapes or values that are no such thing.
    """

    ptr: Tensor
    index: Tensor
    columns: int
    rows: int = field(init=False)
    edges: int = field(init=False)
    _reversed: list[tuple[CSR, Tensor]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._check()
        self._count()
        _ = self.row, self.degree  # made now, so that a compiled graph finds them

    @classmethod
    def trusted(cls, ptr: Tensor, index: Tensor, columns: int, row: Tensor | None = None) -> Self:
        """A graph of parts of others, which were checked; no number is looked at.

        Args:
            ptr: See the class; of ``index``'s dtype.
            index: See the class.
            columns: See the class.
            row: The receiving node of every edge, where it is known; else made when it is asked for.
        """
        found = object.__new__(cls)
        known = {"ptr": ptr, "index": index, "columns": columns, "_reversed": []}
        found.__dict__.update(known if row is None else {**known, "row": row})
        found._count()
        return found

    def _count(self) -> None:
        object.__setattr__(self, "rows", self.ptr.shape[0] - 1)
        object.__setattr__(self, "edges", self.index.shape[0])

    def _check(self) -> None:
        for name in ("ptr", "index"):
            one = getattr(self, name)
            if one.dim() != 1 or one.is_floating_point() or one.dtype == torch.bool:
                raise ValueError(
                    f"{name} must be a vector of integers, got {one.dtype} of shape {tuple(one.shape)}"
                )
        small = self.ptr.dtype == self.index.dtype == torch.int32
        for name in ("ptr", "index"):
            object.__setattr__(self, name, getattr(self, name).to(torch.int32 if small else torch.int64))
        if self.ptr.device != self.index.device:
            raise ValueError(f"ptr is on {self.ptr.device}, index on {self.index.device}: they must agree")
        if len(self.ptr) < 1 or int(self.ptr[0]) != 0 or int(self.ptr[-1]) != len(self.index):
            raise ValueError(f"ptr must run from 0 to {len(self.index)}, the number of edges")
        if bool((self.ptr.diff() < 0).any()):
            raise ValueError("ptr must not decrease")
        if len(self.index) and not 0 <= int(self.index.min()) <= int(self.index.max()) < self.columns:
            found = f"{int(self.index.min())} to {int(self.index.max())}"
            raise ValueError(f"index holds {found}, must be 0 to {self.columns - 1}")

    @classmethod
    def from_edges(cls, source: Tensor, target: Tensor, rows: int, columns: int) -> tuple[CSR, Tensor]:
        """From a list of edges ``source -> target``.

        Returns:
            The graph, and which given edge each of its edges is, (E,): ``weight[order]`` sorts edge
            features. Integers are int32 if those of ``source`` are, else int64.

        Raises:
            ValueError: lists of different lengths, of fractions, or a node out of range.
        """
        for name, one in (("source", source), ("target", target)):
            if one.is_floating_point() or one.is_complex() or one.dtype == torch.bool:
                raise ValueError(f"{name} must be integers, got {one.dtype}")
        if rows < 0 or columns < 0:
            raise ValueError(f"rows={rows} and columns={columns} must not be negative")
        if source.shape != target.shape or source.dim() != 1:
            found = f"{tuple(source.shape)} and {tuple(target.shape)}"
            raise ValueError(f"source and target must be vectors of one length, got {found}")
        if len(target) and not 0 <= int(target.min()) <= int(target.max()) < rows:
            raise ValueError(
                f"target holds {int(target.min())} to {int(target.max())}, must be 0 to {rows - 1}"
            )
        kind = torch.int32 if source.dtype == torch.int32 else torch.int64
        order = torch.argsort(target.long(), stable=True)
        ptr = torch.nn.functional.pad(torch.bincount(target.long(), minlength=rows).cumsum(0), (1, 0))
        return cls(ptr.to(kind), source[order].to(kind), columns), order.to(kind)

    @cached_property
    def row(self) -> Tensor:
        """The receiving node of every edge, (E,)."""
        with torch.inference_mode(False):
            return rows_of(self.degree, self.edges)

    @cached_property
    def degree(self) -> Tensor:
        """Edges per row, (rows,)."""
        with torch.inference_mode(False):
            return self.ptr.diff()

    @property
    def transpose(self) -> tuple[CSR, Tensor]:
        """The reversed graph, and which edge of this one each of its edges is, (E,).

        Made at first use and kept. A compiled graph takes it where it was made before, and otherwise makes it
        in every backward.
        """
        if not self._reversed:
            with torch.inference_mode(False):
                back = CSR.from_edges(self.row, self.index, self.columns, self.rows)
            self._reversed.append(back)
        return self._reversed[0]

    def with_transpose(self, back: CSR, order: Tensor) -> CSR:
        """This graph, with its `transpose` given instead of made.

        Args:
            back: the reversed graph.
            order: which edge of this one each of its edges is, (E,).

        Raises:
            ValueError: it has other nodes or another number of edges.
        """
        if (back.rows, back.columns, back.edges) != (self.columns, self.rows, self.edges):
            raise ValueError(
                f"a transpose of ({self.columns}, {self.rows}) with {self.edges} edges is needed, got "
                f"({back.rows}, {back.columns}) with {back.edges}"
            )
        self._reversed[:] = [(back, order)]
        return self

    def tensors(self, transposed: bool) -> list[Tensor]:
        """What crosses an operator: ``[ptr, index, row]``, then the transpose's ptr and index and its order.

        Args:
            transposed: whether the transpose will be needed; then it is made, unless a graph is being
                compiled, which cannot.
        """
        if self._reversed or (transposed and not torch.compiler.is_compiling()):
            back, order = self.transpose
            return [self.ptr, self.index, self.row, back.ptr, back.index, order]
        return [self.ptr, self.index, self.row]

    def to(self, device: torch.device | str) -> CSR:
        """The same graph on a device."""
        return CSR(self.ptr.to(device), self.index.to(device), self.columns)
