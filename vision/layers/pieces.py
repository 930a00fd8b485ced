"""A small network applied to many rows, a few at a time: what its hidden layer holds stays in cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels.attention.core import as_given
from graphrec.kernels.registering import listened_to

_ROWS = 512
"""Rows at a time: a megabyte of float32 for 512 hidden units."""


def mlp_in_pieces(x: Tensor, first: nn.Linear, last: nn.Linear) -> Tensor:
    """``last(relu(first(x)))``, whose hidden layer is never kept, and is computed again for the gradient.

    Where the rows outnumber the inputs and outputs, as in networks that make biases of distances, memory that
    is fresh and read once takes longer than the arithmetic. On other devices, and where something watches the
    operations, it is computed at once. Autocast does not narrow it.

    Args:
        x: (n, inputs); it gets no gradient.
        first: Linear layer with a bias.
        last: Linear layer with a bias.

    Returns:
        (n, outputs).
    """
    if len(x) <= _ROWS or x.device.type != "cpu" or listened_to():
        whole: Tensor = last(F.relu(first(x)))
        return whole
    found: Tensor = _Pieces.apply(x, first.weight, first.bias, last.weight, last.bias)
    return found


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.linear(x, w1, b1).relu_(), w2, b2)


class _Pieces(torch.autograd.Function):
    """:func:`mlp_in_pieces` with its gradient; differentiated twice, it composes the function anew."""

    @staticmethod
    @as_given
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        out = x.new_empty(len(x), len(weights[2]))
        for piece, into in zip(x.split(_ROWS), out.split(_ROWS), strict=True):
            into.copy_(_mlp(piece, *weights))
        return out

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [one for one, need in zip(weights, ctx.needs_input_grad[1:], strict=True) if need]
            found = iter(torch.autograd.grad(_mlp(x, *weights), wanted, grad, create_graph=True))
            return None, *(next(found) if need else None for need in ctx.needs_input_grad[1:])
        w1, b1, w2, _ = weights
        dw1, db1, dw2 = torch.zeros_like(w1), torch.zeros_like(b1), torch.zeros_like(w2)
        for piece, slope in zip(x.split(_ROWS), grad.split(_ROWS), strict=True):
            hidden = F.linear(piece, w1, b1).relu_()
            dw2.addmm_(slope.T, hidden)
            slopes = torch.ops.aten.threshold_backward(slope @ w2, hidden, 0)
            dw1.addmm_(slopes.T, piece)
            db1.add_(slopes.sum(0))
        return None, dw1, db1, dw2, grad.sum(0)
