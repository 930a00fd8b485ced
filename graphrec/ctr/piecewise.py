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
    """Vectors of numeric fields, (B, N, d).

    Args:
        positions: (B, N) positions among the knots; NaN where a value is missing.
        steps: (N, K - 1, d), the vectors w between knots; those past a field's last knot are not used.
        base: (N, d), the vectors b of the first knots.
        missing: (N, d), what stands for a missing value.
    """
    unknown = positions.isnan()
    starts = torch.arange(steps.shape[1], dtype=positions.dtype, device=positions.device)
    covered = (positions.masked_fill(unknown, 0.0).t()[..., None] - starts).clamp(0.0, 1.0)  # (N, B, K - 1)
    first = torch.where(unknown[..., None], missing, base)
    return first + torch.bmm(covered.to(steps.dtype), steps).transpose(0, 1)


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
