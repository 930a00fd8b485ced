"""Piecewise-linear encoding of numbers (Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in
Tabular Deep Learning, NeurIPS 2022, arXiv 2203.05556, eq. 1), followed by a linear map to a field's vector.

Idea: a number scales one vector in the usual embedding of CTR models, so that its effect has one direction;
with knots between which it interpolates, the vector follows any curve, as bins would, but without steps.

    e(x) = b + sum_k (clip(p(x) - k, 0, 1) - [k < c]) w_k,   k = 0 ... K - 2

p(x) is the number's position among its K knots: 0 at the first, K - 1 at the last, linear between two. The
table encoder finds the knots and hands over p (``transform: piecewise`` of a column). c is the knot nearest
the median of the training rows: the paper has c = 0, where a first step on any w moves all rows the same way.
Official code: https://github.com/yandex-research/rtdl-num-embeddings (its ``PiecewiseLinearEmbeddings``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def piecewise_vectors(
    positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor, centres: Tensor
) -> Tensor:
    """Vectors of numeric fields, (B, N, d); differentiable once, and not in the positions.

    Args:
        positions: (B, N) positions among the knots, clipped to them; NaN where a value is missing.
        steps: (N, K - 1, d), the vectors w between knots; those past a field's last knot are not used.
        base: (N, d), the vectors b of the central knots.
        missing: (N, d), what stands for a missing value.
        centres: (N,) int64, the central knots c.
    """
    if torch.is_grad_enabled() and (steps.requires_grad or base.requires_grad):
        found: Tensor = _Curves.apply(positions, steps, base, missing, centres)
        return found
    return _interpolated(positions, steps, base, missing, centres)


def _interpolated(positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor, centres: Tensor) -> Tensor:
    """By looking up the vectors of the knots beside each position."""
    count, unknown = steps.shape[1], positions.isnan()
    positions = positions.clamp(0.0, float(count))
    risen = torch.cat([torch.zeros_like(base).unsqueeze(1), steps.cumsum(1)], dim=1)  # (N, K, d)
    fields = torch.arange(len(base), device=base.device)
    curves = risen + (base - risen[fields, centres]).unsqueeze(1)
    nothing = missing.unsqueeze(1)  # twice, as a position's second knot is the next row
    table = torch.cat([curves, nothing, nothing], dim=1)
    below = positions.floor().clamp(max=count - 1).masked_fill(unknown, count + 1)
    share = (positions - below).masked_fill(unknown, 0.0).to(table.dtype)
    rows = (below.int() + fields.int() * table.shape[1]).flatten()
    knots = table.flatten(0, 1)
    start = knots.index_select(
        0, rows
    )  # torch.lerp rounds the last few of its numbers otherwise than the others
    return (start + share.view(-1, 1) * (knots.index_select(0, rows + 1) - start)).unflatten(
        0, positions.shape
    )


class _Curves(torch.autograd.Function):
    """Look-ups forward; backward one product with what the equation multiplies, as rows share few knots."""

    @staticmethod
    def forward(
        ctx: Any, positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor, centres: Tensor
    ) -> Tensor:
        ctx.save_for_backward(positions, centres)
        ctx.count = steps.shape[1]
        return _interpolated(positions, steps, base, missing, centres)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        positions, centres = ctx.saved_tensors
        unknown, grad = positions.isnan(), grad.transpose(0, 1)  # (N, B, d)
        starts = torch.arange(ctx.count, dtype=grad.dtype, device=grad.device)
        places = positions.masked_fill(unknown, 0.0).to(grad.dtype).t().unsqueeze(-1)
        covered = (places - starts).clamp_(0.0, 1.0)  # (N, B, K - 1)
        one = grad.shape[2] == 1  # products of one column are slow
        steps = (covered * grad).sum(1).unsqueeze(-1) if one else torch.bmm(covered.mT, grad)
        missing = torch.bmm(unknown.t().unsqueeze(1).to(grad.dtype), grad).squeeze(1)
        base = grad.sum(1) - missing
        before = (starts < centres.unsqueeze(1)).to(grad.dtype)  # (N, K - 1)
        return None, steps - before.unsqueeze(-1) * base.unsqueeze(1), base, missing, None


def with_prior(weight: Tensor, precision: float) -> Tensor:
    """``weight`` itself, to whose gradient ``precision * weight`` is added on the way back."""
    found: Tensor = _WithPrior.apply(weight, precision)
    return found


class _WithPrior(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, precision: float) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.precision = precision
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return torch.add(grad, weight, alpha=ctx.precision), None
