"""Train on a batch block of rows by block of rows, so that activations stay in the processor's cache.

A model whose rows do not see each other has the same loss and gradients whether a batch of 4,096 rows
passes through it at once or 128 rows at a time. On a CPU the second is faster where activations are large
and arithmetic is small: one projection of an AutoInt layer on 39 fields writes 5 MB per 128 rows, 160 MB per
4,096.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class _Blockwise(torch.autograd.Function):
    """Runs forward and backward of each block in turn; `backward` only scales what was gathered."""

    @staticmethod
    def forward(
        ctx: Any, loss: Callable[..., Tensor], block: int, n_aligned: int, *tensors: Tensor
    ) -> Tensor:
        aligned, parameters = tensors[:n_aligned], tensors[n_aligned:]
        wanted = ctx.needs_input_grad[3:]
        row_grads = [torch.empty_like(t) if w else None for t, w in zip(aligned, wanted, strict=False)]
        param_grads: list[Tensor | None] = [None] * len(parameters)
        total = tensors[0].new_zeros((), dtype=torch.float32)
        for start in range(0, len(aligned[0]), block):
            rows = slice(start, start + block)
            parts = [t[rows].detach().requires_grad_(w) for t, w in zip(aligned, wanted, strict=False)]
            with torch.enable_grad():
                value = loss(*parts)
            inputs = [t for t, w in zip([*parts, *parameters], wanted, strict=True) if w]
            grads = iter(torch.autograd.grad(value, inputs, allow_unused=True) if inputs else ())
            for gathered, w in zip(row_grads, wanted, strict=False):
                if w and gathered is not None:
                    part = next(grads)
                    gathered[rows] = 0 if part is None else part
            for i, w in enumerate(wanted[n_aligned:]):
                grad = next(grads) if w else None
                if grad is not None:
                    seen = param_grads[i]
                    param_grads[i] = grad.clone() if seen is None else seen.add_(grad)
            total += value.detach()
        ctx.grads = [*row_grads, *param_grads]
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        return (None, None, None, *(None if g is None else g.mul_(grad) for g in ctx.grads))


def blockwise_sum(
    loss: Callable[..., Tensor], aligned: Sequence[Tensor], parameters: Sequence[Tensor], block: int
) -> Tensor:
    """Sum of ``loss`` over blocks of rows, with the gradients of the whole.

    Args:
        loss: Takes the rows of each tensor of ``aligned`` in one block; returns a scalar. Its sum over blocks
            must be the loss of the batch, so a mean over rows has to be divided by the batch's size, not the
            block's. It must not change state such as batch statistics.
        aligned: Tensors of B rows each.
        parameters: Every parameter that ``loss`` uses and that should receive a gradient.
        block: Rows of a block.

    Returns:
        The scalar loss. Its gradients are computed in the forward pass, so it can be differentiated once.
    """
    return _Blockwise.apply(loss, block, len(aligned), *aligned, *parameters)
