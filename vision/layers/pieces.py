"""A small network applied to many rows, a few at a time: what its hidden layer holds stays in cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.kernels.attention.core import as_given
from graphrec.kernels.registering import listened_to

_ROWS = 256
"""Rows at a time: half a megabyte of float32 for 512 hidden units."""


def mlp_in_pieces(x: Tensor, first: nn.Linear, last: nn.Linear) -> Tensor:
    """``last(relu(first(x))).T``, whose hidden layer is never kept, and is computed again for the gradient.

    Where the rows outnumber the inputs and outputs, as in networks that make biases of distances, memory that
    is fresh and read once takes longer than the arithmetic. On other devices, and where something watches the
    operations, it is computed at once. Autocast does not narrow it.

    Args:
        x: (n, inputs); it gets no gradient.
        first: Linear layer with a bias.
        last: Linear layer with a bias.

    Returns:
        (outputs, n).
    """
    if len(x) <= _ROWS or x.device.type != "cpu" or listened_to():
        whole: Tensor = last(F.relu(first(x)))
        return whole.T
    found: Tensor = _Pieces.apply(x, first.weight, first.bias, last.weight, last.bias)
    return found


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.linear(x, w1, b1).relu_(), w2, b2).T


class _Pieces(torch.autograd.Function):
    """:func:`mlp_in_pieces` with its gradient; differentiated twice, it composes the function anew.

    Matrices of two or three columns are slow as the second factor on a CPU, and five to eight times as fast
    transposed, as the first: hence biases as rows of weights, and outputs along the rows.
    """

    @staticmethod
    @as_given
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        rows, inner = _with_bias(x, *weights[:2])
        _, _, w2, b2 = weights
        out, hidden = x.new_empty(len(w2), len(x)), x.new_empty(_ROWS, len(w2.T))
        for piece, into in zip(rows.split(_ROWS), out.split(_ROWS, 1), strict=True):
            into.copy_(w2 @ torch.mm(piece, inner, out=hidden[: len(piece)]).relu_().T)
        return out.add_(b2.unsqueeze(1))

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        if torch.is_grad_enabled():
            wanted = [one for one, need in zip(weights, ctx.needs_input_grad[1:], strict=True) if need]
            found = iter(torch.autograd.grad(_mlp(x, *weights), wanted, grad, create_graph=True))
            return None, *(next(found) if need else None for need in ctx.needs_input_grad[1:])
        rows, inner = _with_bias(x, *weights[:2])
        w2 = weights[2]
        first, last = torch.zeros_like(inner), torch.zeros_like(w2)
        hidden, slopes = x.new_empty(2, _ROWS, len(inner.T))
        for piece, given in zip(rows.split(_ROWS), grad.split(_ROWS, 1), strict=True):
            seen, slope = hidden[: len(piece)], slopes[: len(piece)]
            torch.mm(piece, inner, out=seen).relu_()
            last.addmm_(given, seen)
            torch.mm(given.T, w2, out=slope)
            torch.ops.aten.threshold_backward.grad_input(slope, seen, 0, grad_input=slope)
            first.addmm_(piece.T, slope)
        return None, first[:-1].T, first[-1], last, grad.sum(1)


def _with_bias(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that end in a 1, (n, inputs + 1), and the weights whose last row is the bias."""
    return F.pad(x, (0, 1), value=1.0), torch.cat([weight.T, bias.unsqueeze(0)])
