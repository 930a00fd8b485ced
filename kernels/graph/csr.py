"""A graph as compressed rows, with its transpose."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CSR:
    """Edges grouped by the node that receives them.

    Edge ``e`` of row ``i`` (``ptr[i] <= e < ptr[i + 1]``) comes from column ``index[e]``. Edge features
    follow this order. The order of edges within a row is free, and an edge may occur twice.

    Attributes:
        ptr: int64 (rows + 1,), from 0 to the number of edges, not decreasing.
        index: int64 (E,), 0 to ``columns - 1``.
        columns: nodes on the sending side.
        row: the receiving node of every edge, int64 (E,).
        degree: edges per row, int64 (rows,).

    Raises:
        ValueError: dtypes, shapes or values that are no such thing.
    """

    ptr: Tensor
    index: Tensor
    columns: int
    row: Tensor = field(init=False)
    degree: Tensor = field(init=False)
    _reversed: list[tuple[CSR, Tensor]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        for name in ("ptr", "index"):
            one = getattr(self, name)
            if one.dim() != 1 or one.is_floating_point() or one.dtype == torch.bool:
                raise ValueError(
                    f"{name} must be a vector of integers, got {one.dtype} of shape {tuple(one.shape)}"
                )
            object.__setattr__(self, name, one.long())
        if len(self.ptr) < 1 or int(self.ptr[0]) != 0 or int(self.ptr[-1]) != len(self.index):
            raise ValueError(f"ptr must run from 0 to {len(self.index)}, the number of edges")
        if bool((self.ptr.diff() < 0).any()):
            raise ValueError("ptr must not decrease")
        if len(self.index) and not 0 <= int(self.index.min()) <= int(self.index.max()) < self.columns:
            found = f"{int(self.index.min())} to {int(self.index.max())}"
            raise ValueError(f"index holds {found}, must be 0 to {self.columns - 1}")
        with torch.inference_mode(False):
            degree = self.ptr.diff()
            nodes = torch.arange(self.rows, device=self.ptr.device)
            object.__setattr__(self, "degree", degree)
            object.__setattr__(self, "row", torch.repeat_interleave(nodes, degree))

    @classmethod
    def from_edges(cls, source: Tensor, target: Tensor, rows: int, columns: int) -> tuple[CSR, Tensor]:
        """From a list of edges ``source -> target``.

        Returns:
            The graph, and which given edge each of its edges is, int64 (E,): ``weight[order]`` sorts edge
            features.

        Raises:
            ValueError: lists of different lengths, or a node out of range.
        """
        if source.shape != target.shape or source.dim() != 1:
            found = f"{tuple(source.shape)} and {tuple(target.shape)}"
            raise ValueError(f"source and target must be vectors of one length, got {found}")
        if len(target) and not 0 <= int(target.min()) <= int(target.max()) < rows:
            raise ValueError(
                f"target holds {int(target.min())} to {int(target.max())}, must be 0 to {rows - 1}"
            )
        order = torch.argsort(target.long(), stable=True)
        ptr = torch.nn.functional.pad(torch.bincount(target.long(), minlength=rows).cumsum(0), (1, 0))
        return cls(ptr, source[order], columns), order

    @property
    def rows(self) -> int:
        """Nodes on the receiving side."""
        return len(self.ptr) - 1

    @property
    def edges(self) -> int:
        """Number of edges."""
        return len(self.index)

    @property
    def transpose(self) -> tuple[CSR, Tensor]:
        """The reversed graph, and which edge of this one each of its edges is, int64 (E,).

        Made at first use; a compiled graph needs that to have happened before.
        """
        if not self._reversed:
            with torch.inference_mode(False):
                back = CSR.from_edges(self.row, self.index, self.columns, self.rows)
            self._reversed.append(back)
        return self._reversed[0]

    def to(self, device: torch.device | str) -> CSR:
        """The same graph on a device."""
        return CSR(self.ptr.to(device), self.index.to(device), self.columns)
