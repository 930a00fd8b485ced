"""Products of two sets of vectors, compressed to fewer: ``y_k = sum_ij w_kij a_i b_j``, as CIN has them.

All products are F H numbers where the sets have F and H. They are made for some rows at a time, multiplied by
the weights, dropped, and made again for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_FLOATS = 1_000_000
"""Products in memory at a time on a CPU."""

_BLOCK_FLOATS_ELSEWHERE = 64_000_000
"""As many as keep a large device busy."""


def compressed_products(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """``y_nk = sum_ij w_k(ij) a_ni b_nj``.

    Args:
        left: The a, (n, F).
        right: The b, (n, H).
        weight: (K, F H), the products of the first a before those of the second.

    Returns:
        (n, K).
    """
    if torch.compiler.is_compiling():
        return _products(left, right) @ weight.T
    found: Tensor = _Compressed.apply(left, right, weight)
    return found


class _Compressed(torch.autograd.Function):
    """`compressed_products` by blocks of rows, of which nothing but the arguments is kept."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, weight)
        out = left.new_empty(len(left), len(weight))
        for rows in _blocks(left, right):
            out[rows] = _products(left[rows], right[rows]) @ weight.T
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]  # torch: *grads
        left, right, weight = ctx.saved_tensors
        dleft, dright = torch.empty_like(left), torch.empty_like(right)
        dweight = weight.new_zeros(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32))
        for rows in _blocks(left, right):
            a, b = left[rows], right[rows]
            dweight += grad[rows].T @ _products(a, b)
            dproducts = (grad[rows] @ weight).unflatten(1, (left.shape[1], right.shape[1]))
            dleft[rows] = (dproducts @ b.unsqueeze(2)).squeeze(2)
            dright[rows] = (a.unsqueeze(1) @ dproducts).squeeze(1)
        return dleft, dright, dweight.to(weight.dtype)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(n, F) and (n, H) to (n, F H)."""
    return (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)


def _blocks(left: Tensor, right: Tensor) -> Iterator[slice]:
    floats = _BLOCK_FLOATS if left.device.type == "cpu" else _BLOCK_FLOATS_ELSEWHERE
    step = max(1, floats // (left.shape[1] * right.shape[1]))
    return (slice(start, start + step) for start in range(0, len(left), step))
