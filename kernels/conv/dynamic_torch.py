"""Dynamic convolution in plain torch: shifted copies times filters, added up, without unfolded windows.

For every column of taps the input is shifted once, which leaves rows of the output's width; then every tap is
one multiply-add over whole rows. Work goes in pieces of channels that stay in the cache, in float32 for
half-precision inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .dynamic_places import Axis

_PIECE = 1 << 17
"""Numbers in a piece, to stay in the cache."""

Piece = tuple[slice, slice, slice]


def _pieces(x: Tensor, area: int) -> Iterator[Piece]:
    """Slices of batch entries, groups and channels per group, of about ``_PIECE`` numbers each."""
    batch, groups, members = x.shape[:3]
    room = max(1, _PIECE // max(area, 1))
    m = min(members, room)
    g = min(groups, max(1, room // max(members, 1)))
    b = min(batch, max(1, room // max(members * groups, 1)))
    for i in range(0, batch, max(b, 1)):
        for j in range(0, groups, max(g, 1)):
            for k in range(0, members, max(m, 1)):
                yield slice(i, i + b), slice(j, j + g), slice(k, k + m)


def _wide(x: Tensor) -> Tensor:
    """Contiguous, and at least float32."""
    kind = x.dtype if x.dtype == torch.float64 else torch.float32
    return x.to(kind, memory_format=torch.contiguous_format).contiguous()


def _shifted(x: Tensor, columns: Axis, tap: int) -> Tensor:
    """What a tap meets in every output column, (..., H, W')."""
    out = x.new_zeros(*x.shape[:-1], columns.count)
    for run in columns.runs(tap):
        out[..., run.outputs] = x[..., run.inputs]
    return out


def forward(out: Tensor, x: Tensor, weight: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the output (B, G, M, H', W') for x (B, G, M, H, W) and weight (B, G, kh * kw, H', W')."""
    for b, g, m in _pieces(x, rows.count * columns.count):
        part, filters = _wide(x[b, g, m]), _wide(weight[b, g])
        total = part.new_zeros(*part.shape[:3], rows.count, columns.count)
        for j in range(columns.kernel):
            met = _shifted(part, columns, j)
            for i in range(rows.kernel):
                factor = filters[:, :, i * columns.kernel + j].unsqueeze(2)
                for run in rows.runs(i):
                    total[..., run.outputs, :].addcmul_(met[..., run.inputs, :], factor[..., run.outputs, :])
        out[b, g, m] = total


def backward_input(dx: Tensor, grad: Tensor, weight: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the gradient (B, G, M, H, W) of the input."""
    for b, g, m in _pieces(grad, rows.count * columns.count):
        part, filters = _wide(grad[b, g, m]), _wide(weight[b, g])
        total = part.new_zeros(*part.shape[:3], rows.length, columns.length)
        for j in range(columns.kernel):
            met = part.new_zeros(*part.shape[:3], rows.length, columns.count)
            for i in range(rows.kernel):
                factor = filters[:, :, i * columns.kernel + j].unsqueeze(2)
                for run in rows.runs(i):
                    given, scale = part[..., run.outputs, :], factor[..., run.outputs, :]
                    if run.step:
                        met[..., run.inputs, :].addcmul_(given, scale)
                    else:
                        met[..., run.inputs, :] += (given * scale).sum(-2, keepdim=True)
            for run in columns.runs(j):
                given = met[..., run.outputs]
                total[..., run.inputs] += given if run.step else given.sum(-1, keepdim=True)
        dx[b, g, m] = total


def backward_weight(dweight: Tensor, grad: Tensor, x: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the gradient (B, G, kh * kw, H', W') of the filters, float32 or wider."""
    dweight.zero_()
    for b, g, m in _pieces(x, rows.count * columns.count):
        part, given, total = _wide(x[b, g, m]), _wide(grad[b, g, m]), dweight[b, g]
        product = torch.empty_like(given)
        for j in range(columns.kernel):
            met = _shifted(part, columns, j)
            for i in range(rows.kernel):
                for run in rows.runs(i):
                    some = product[..., run.outputs, :]
                    torch.mul(given[..., run.outputs, :], met[..., run.inputs, :], out=some)
                    total[:, :, i * columns.kernel + j, run.outputs] += some.sum(2)
