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
    """One learned number per head and distance, added to the logits (Swin, arXiv:2103.14030, eq. 4).

    Args:
        table: (H or 1, prod(2 * window - 1)). Column ``i`` belongs to the distance whose coordinates, counted
        from
            ``-(window - 1)``, have the row-major number ``i``; a distance is query minus key. Swin's own
            table is this one transposed.
        window: distances reach from ``1 - window`` to ``window - 1`` on each axis. Windows and neighborhoods
        of
            kernel 7 need ``(7, 7)``; a sequence of 512 that sees all of itself needs ``512``.

    Raises:
        ValueError: the table does not have that many columns.
    """

    table: Tensor
    window: tuple[int, ...]

    def __post_init__(self) -> None:
        window = (self.window,) if isinstance(self.window, int) else tuple(self.window)
        object.__setattr__(self, "window", per_axis(window, len(window), "window"))
        columns = torch.Size(2 * one - 1 for one in window).numel()
        if self.table.dim() != 2 or self.table.shape[1] != columns:
            raise ValueError(
                f"table of shape {tuple(self.table.shape)} must be (heads, {columns}) for window={window}"
            )

    def check(self, pattern: Pattern, q_len: int, k_len: int, heads: int) -> None:
        """Raise ValueError when the table lacks a head or a distance that the pattern shows."""
        if self.table.shape[0] not in (1, heads):
            raise ValueError(
                f"table of shape {tuple(self.table.shape)} must have 1 or {heads} rows, one per head"
            )
        extent = pattern.extent(q_len, k_len)
        if len(extent) != len(self.window):
            raise ValueError(f"window={self.window} of the bias must have {len(extent)} axes for {pattern!r}")
        if any(far >= one for far, one in zip(extent, self.window, strict=True)):
            need = tuple(far + 1 for far in extent)
            raise ValueError(f"window={self.window} of the bias must be at least {need} for {pattern!r}")

    def dense(self, pattern: Pattern, q_len: int, k_len: int) -> Tensor:
        """The bias of every pair, (H or 1, Lq, Lk); meaningless where the pattern hides the pair."""
        q, k = flat_places(pattern, self.window, q_len, k_len, self.table.device)
        return self.table[:, (q[:, None] - k).clamp(0, self.table.shape[1] - 1)]

    def phantom(self, steps: Tensor, exist: Tensor) -> Tensor:
        """Log of the summed exponentials of zero keys' biases, (H or 1, Lq); -inf where there are none."""
        columns = sum(
            (steps[..., axis] + one - 1) * multiple
            for axis, (one, multiple) in enumerate(zip(self.window, _multiples(self.window), strict=True))
        )
        logits = self.table[:, torch.where(exist, columns, 0).to(self.table.device)]  # [H, Lq, P]
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
    multiples = torch.tensor(_multiples(window))
    centre = int(((torch.tensor(window) - 1) * multiples).sum())
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
    q, k = flat_places(pattern, window, q_len, k_len, q_index.device)
    columns = q[q_index.clamp(min=0)].unsqueeze(-1) - k[k_index.clamp(min=0)].unsqueeze(-2)
    total = torch.Size(2 * one - 1 for one in window).numel()
    hidden = (q_index < 0).unsqueeze(-1) | (k_index < 0).unsqueeze(-2)
    return columns.masked_fill(hidden, 0).clamp(0, total - 1)
