"""Sequences laid end to end, as rows: those of about equal length are padded together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def padded(ptr: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Graphs whose sizes share a power of two: node numbers (b, n), and which of them are no padding."""
    sizes = ptr.diff()
    groups = torch.where(sizes > 0, (2 * sizes - 1).clamp(min=1).log2().floor().long(), -1)
    for group in groups.unique().tolist():
        if group < 0:
            continue
        chosen = (groups == group).nonzero().flatten()
        steps = torch.arange(int(sizes[chosen].max()), device=ptr.device)
        real = steps < sizes[chosen].unsqueeze(1)
        yield ptr[chosen].unsqueeze(1) + torch.where(real, steps, 0), real


def over_rows(x: Tensor, ptr: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply a function of rows to every graph's nodes.

    Args:
        x: (N, D).
        ptr: First node of every graph and N, int64 (B + 1,).
        function: Of rows (b, n, D) and of which positions are nodes, bool (b, n, 1); gives (b, n, D'). What
            stands at other positions is of some node, and must not matter.

    Returns:
        (N, D').
    """
    if len(ptr) == 2 or not len(x):
        return function(x.unsqueeze(0), torch.ones(1, 1, 1, dtype=torch.bool, device=x.device)).squeeze(0)
    outputs, rows = [], []
    for place, real in padded(ptr):
        outputs.append(function(x[place], real.unsqueeze(-1))[real])
        rows.append(place[real])
    return torch.cat(outputs)[torch.cat(rows).argsort()]
