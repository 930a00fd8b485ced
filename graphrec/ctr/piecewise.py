"""Piecewise-linear encoding of numbers (Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in
Tabular Deep Learning, NeurIPS 2022, arXiv 2203.05556, eq. 1), followed by a linear map to a field's vector.

Idea: a number scales one vector in the usual embedding of CTR models, so that its effect has one direction;
with knots between which it interpolates, the vector follows any curve, as bins would, but without steps.

    e(x) = b + sum_k clip(p(x) - k, 0, 1) w_k,   k = 0 ... K - 2

p(x) is the number's position among its K knots: 0 at the first, K - 1 at the last, linear between two. The
table encoder finds the knots and hands over p (``transform: piecewise`` of a column).
Official code: https://github.com/yandex-research/rtdl-num-embeddings (its ``PiecewiseLinearEmbeddings``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def piecewise_vectors(positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor) -> Tensor:
    """Vectors of numeric fields, (B, N, d); differentiable once, and not in the positions.

    Args:
        positions: (B, N) positions among the knots; NaN where a value is missing.
        steps: (N, K - 1, d), the vectors w between knots; those past a field's last knot are not used.
        base: (N, d), the vectors b of the first knots.
        missing: (N, d), what stands for a missing value.
    """
    if torch.is_grad_enabled() and (steps.requires_grad or base.requires_grad):
        found: Tensor = _Curves.apply(positions, steps, base, missing)
        return found
    return _interpolated(positions, steps, base, missing)


def _interpolated(positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor) -> Tensor:
    """By looking up the vectors of the knots beside each position."""
    first, unknown, last = base.unsqueeze(1), positions.isnan(), steps.shape[1]
    nothing = missing.unsqueeze(1)  # twice, as a position's second knot is the next row
    table = torch.cat([first, first + steps.cumsum(1), nothing, nothing], dim=1)  # (N, K + 2, d)
    below = positions.floor().clamp(max=last - 1).masked_fill(unknown, last + 1)
    share = (positions - below).masked_fill(unknown, 0.0).to(table.dtype)
    fields = torch.arange(len(table), dtype=torch.int32, device=table.device)
    rows = (below.int() + fields * table.shape[1]).flatten()
    knots = table.flatten(0, 1)
    return torch.lerp(knots[rows], knots[rows + 1], share.view(-1, 1)).unflatten(0, positions.shape)


class _Curves(torch.autograd.Function):
    """Look-ups forward; backward one product with what the equation multiplies, as rows share few knots."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, steps: Tensor, base: Tensor, missing: Tensor) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.count = steps.shape[1]
        return _interpolated(positions, steps, base, missing)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:  # type: ignore[override]
        (positions,) = ctx.saved_tensors
        unknown, grad = positions.isnan(), grad.transpose(0, 1)  # (N, B, d)
        starts = torch.arange(ctx.count, dtype=grad.dtype, device=grad.device)
        places = positions.masked_fill(unknown, 0.0).to(grad.dtype).t().unsqueeze(-1)
        covered = (places - starts).clamp_(0.0, 1.0)  # (N, B, K - 1)
        one = grad.shape[2] == 1  # products of one column are slow
        steps = (covered * grad).sum(1).unsqueeze(-1) if one else torch.bmm(covered.mT, grad)
        missing = torch.bmm(unknown.t().unsqueeze(1).to(grad.dtype), grad).squeeze(1)
        return None, steps, grad.sum(1) - missing, missing


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
