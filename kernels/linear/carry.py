"""States from chunk to chunk: the one part of chunked linear attention that runs in order.

``S[0] = first`` and ``S[n + 1] = step[n] S[n] + add[n]``. A step is a factor per row of the state, or with
``matrix`` a matrix. The gradient is the same recurrence from the end: with ``G`` the gradient of ``S``,
``L[n] = G[n] + step[n]^T L[n + 1]``, ``dadd[n] = L[n + 1]``, ``dstep[n] = L[n + 1] S[n]^T``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..registering import operator


@operator("graphrec::carry_states")
def carry_states(step: Tensor, add: Tensor, first: Tensor, matrix: bool) -> Tensor:
    """All states (G, N + 1, K, V).

    Args:
        step: (G, N, K, K) with ``matrix``, else (G, N, K or 1, 1).
        add: (G, N, K, V).
        first: (G, K, V).
        matrix: whether a step multiplies as a matrix or element by element.
    """
    groups, count, rows, columns = add.shape
    out = add.new_empty(groups, count + 1, rows, columns)
    out[:, 0] = first
    for n in range(count):
        if matrix:
            torch.baddbmm(add[:, n], step[:, n], out[:, n], out=out[:, n + 1])
        else:
            torch.addcmul(add[:, n], step[:, n], out[:, n], out=out[:, n + 1])
    return out


@carry_states.register_fake
def _(step: Tensor, add: Tensor, first: Tensor, matrix: bool) -> Tensor:
    return add.new_empty(add.shape[0], add.shape[1] + 1, *add.shape[2:])


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.matrix = inputs[3]
    ctx.save_for_backward(inputs[0], output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
    step, states = ctx.saved_tensors
    turned = step.mT if ctx.matrix else step
    back = carry_states(turned.flip(1), grad[:, :-1].flip(1), grad[:, -1], ctx.matrix).flip(1)
    after, before = back[:, 1:], states[:, :-1]
    if not ctx.needs_input_grad[0]:
        dstep = None
    elif ctx.matrix:
        dstep = after @ before.mT
    else:
        dstep = (after * before).sum(-1, keepdim=True)
        dstep = dstep if step.shape[2] == before.shape[2] else dstep.sum(2, keepdim=True)
    return dstep, after, back[:, 0], None


carry_states.register_autograd(_backward, setup_context=_setup)
