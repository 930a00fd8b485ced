"""A learned bias that depends on the distance between query and key, kept as a table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..patterns import Pattern
from ..patterns.base import per_axis
from ..remembered import kept


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """One number per head and distance, added to the logits (Swin, arXiv:2103.14030, eq. 4).

    As ``times`` or ``plus`` of :func:`graphrec.kernels.attention` the numbers act on the probabilities. A
    table of four axes has a row for every query, so that numbers computed from the queries, as TransNeXt's
    learnable tokens give them (arXiv:2311.17132), take memory for the distances within reach and not for all
    pairs.

    Args:
        table: (H or 1, prod(2 * window - 1)), or (B or 1, H or 1, Lq or 1, that number). Column ``i`` belongs
            to the distance whose coordinates, counted from ``-(window - 1)``, have the row-major number
            ``i``; a distance is query minus key. Swin's own table is this one transposed.
        window: distances reach from ``1 - window`` to ``window - 1`` on each axis. Windows and neighborhoods
            of kernel 7 need ``(7, 7)``; a sequence of 512 that sees all of itself needs ``512``.

    Raises:
        ValueError: the table does not have that many columns.
    """

    table: Tensor
    window: tuple[int, ...]

    def __post_init__(self) -> None:
        window = (self.window,) if isinstance(self.window, int) else tuple(self.window)
        object.__setattr__(self, "window", per_axis(window, len(window), "window"))
        columns = torch.Size(2 * one - 1 for one in window).numel()
        if self.table.dim() not in (2, 4) or self.table.shape[-1] != columns:
            raise ValueError(
                f"table of shape {tuple(self.table.shape)} must be (heads, {columns}) for window={window}"
            )

    def whole(self) -> Tensor:
        """The table with all its axes, (B or 1, H or 1, Lq or 1, columns)."""
        return self.table if self.table.dim() == 4 else self.table[None, :, None]

    def check(self, pattern: Pattern, q_len: int, k_len: int, heads: int, batch: int | None = None) -> None:
        """Raise ValueError when the table lacks a head or a distance that the pattern shows."""
        size = self.whole().shape
        if self.table.dim() == 2 and size[1] not in (1, heads):
            raise ValueError(
                f"table of shape {tuple(self.table.shape)} must have 1 or {heads} rows, one per head"
            )
        fits = [one in (1, want) for one, want in zip(size, (batch or size[0], heads, q_len), strict=False)]
        if not all(fits):
            want = f"({batch}, {heads}, {q_len}, {size[3]})"
            raise ValueError(f"table of shape {tuple(self.table.shape)} must broadcast to {want}")
        extent = pattern.extent(q_len, k_len)
        if len(extent) != len(self.window):
            raise ValueError(f"window={self.window} of the bias must have {len(extent)} axes for {pattern!r}")
        if any(far >= one for far, one in zip(extent, self.window, strict=True)):
            need = tuple(far + 1 for far in extent)
            raise ValueError(f"window={self.window} of the bias must be at least {need} for {pattern!r}")

    def dense(self, pattern: Pattern, q_len: int, k_len: int) -> Tensor:
        """The bias of every pair, (…, H or 1, Lq, Lk); meaningless where the pattern hides the pair."""
        q, k = flat_places(pattern, self.window, q_len, k_len, self.table.device)
        found = self._looked_up((q[:, None] - k).clamp(0, self.table.shape[-1] - 1))
        return found if self.table.dim() == 4 else found[0]

    def _looked_up(self, columns: Tensor) -> Tensor:
        """The numbers at columns (Lq, n) of each query, (B or 1, H or 1, Lq, n)."""
        table = self.whole()
        if table.shape[2] == 1:
            return table[:, :, 0][..., columns]
        return table.gather(3, columns.expand(*table.shape[:2], *columns.shape))

    def phantom(self, steps: Tensor, exist: Tensor) -> Tensor:
        """Log of the summed exponentials of zero keys' biases, (B or 1, H or 1, Lq); -inf without any."""
        columns = sum(
            (steps[..., axis] + one - 1) * multiple
            for axis, (one, multiple) in enumerate(zip(self.window, _multiples(self.window), strict=True))
        )
        logits = self._looked_up(torch.where(exist, columns, 0).to(self.table.device))  # [B, H, Lq, P]
        exist = exist.to(self.table.device)
        none = ~exist.any(-1)
        logits = logits.masked_fill(~(exist | none[:, None]), -torch.inf)
        return logits.logsumexp(-1).masked_fill(none, -torch.inf)


def _multiples(window: tuple[int, ...]) -> list[int]:
    """What a step along each axis adds to the column."""
    return [torch.Size(2 * one - 1 for one in window[axis + 1 :]).numel() for axis in range(len(window))]


@lru_cache(maxsize=64)
@kept
def _static_places(
    pattern: Pattern, window: tuple[int, ...], q_len: int, k_len: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    steps = _multiples(window)
    centre = sum((one - 1) * step for one, step in zip(window, steps, strict=True))
    multiples = torch.tensor(steps)
    q = (pattern.coordinates(q_len) * multiples).sum(-1) + pattern.origin + centre
    return q.to(device), (pattern.coordinates(k_len) * multiples).sum(-1).to(device)


def flat_places(
    pattern: Pattern, window: tuple[int, ...], q_len: int, k_len: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Two int64 vectors (Lq,) and (Lk,) whose difference is the table's column for a query and a key."""
    compiling = torch.compiler.is_compiling()
    make = _static_places if pattern.static and not compiling else _static_places.__wrapped__
    return make(pattern, window, q_len, k_len, device)


def table_columns(
    pattern: Pattern, q_index: Tensor, k_index: Tensor, window: tuple[int, ...], q_len: int, k_len: int
) -> Tensor:
    """Column of every pair of groups (N, m) and their keys (B', H', N, n), int64 (B', H', N, m, n)."""
    q, k = _static_places.__wrapped__(pattern, window, q_len, k_len, q_index.device)  # the columns are kept
    columns = _taken(q, q_index).unsqueeze(-1) - _taken(k, k_index).unsqueeze(-2)
    total = torch.Size(2 * one - 1 for one in window).numel()
    hidden = (q_index < 0).unsqueeze(-1) | (k_index < 0).unsqueeze(-2)
    return columns.masked_fill(hidden, 0).clamp(0, total - 1)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]`` of a vector, the first number for -1."""
    return x.unsqueeze(-1).index_select(0, index.clamp(min=0).flatten()).view(index.shape)
