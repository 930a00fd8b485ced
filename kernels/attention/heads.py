"""Heads cut out of a packed projection, and put back together without a copy where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..registering import listened_to


def split_heads(packed: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    """Queries, keys and values of one projection, as views.

    The same as reshaping and unbinding; but where the gradients come back side by side, as :func:`attention`
    in windows writes them, they are the gradient of the projection as they stand, and nothing is stacked.

    Args:
        packed: (B, L, parts * H * D), part by part and, in each, head by head: what one linear layer for
            queries, keys and values returns.
        heads: H.
        parts: how many tensors; 3 for q, k and v, 2 for k and v.

    Returns:
        ``parts`` views (B, H, L, D).

    Raises:
        ValueError: ``packed`` is not floating point, has not three axes, or its last does not divide.
    """
    if not packed.is_floating_point():
        raise ValueError(f"packed must be floating point, got {packed.dtype}")
    if packed.dim() != 3 or heads < 1 or parts < 1 or packed.shape[2] % (parts * heads):
        want = f"(batch, length, a multiple of parts * heads = {parts * heads})"
        raise ValueError(f"packed of shape {tuple(packed.shape)} must be {want}")
    if listened_to() or not packed.requires_grad or not torch.is_grad_enabled():
        return _views(packed, heads, parts)
    return _Split.apply(packed, heads, parts)  # type: ignore[no-any-return]


def _views(packed: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    dim = packed.shape[2] // (parts * heads)
    return packed.unflatten(2, (parts, heads, dim)).permute(2, 0, 3, 1, 4).unbind(0)


class _Split(torch.autograd.Function):
    """:func:`split_heads` with its gradient."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.shape = packed.shape
        return _views(packed, heads, parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        given = [one for one in grads if one is not None]
        if not given:
            return None, None, None
        full = [torch.zeros_like(given[0]) if one is None else one for one in grads]
        found = None if torch.is_grad_enabled() else joined(full)
        if found is None:
            found = torch.stack([one.transpose(1, 2) for one in full], 2)
        return found.reshape(ctx.shape), None, None


def joined(parts: Sequence[Tensor]) -> Tensor | None:
    """The tensor (B, L, P, H, D), contiguous in its last four axes, of whose parts these are all views.

    Args:
        parts: P tensors (B, H, L, D) of one shape and dtype.

    Returns:
        A view, outside of autograd; None where the parts do not lie side by side.
    """
    first, count = parts[0], len(parts)
    batch, heads, length, dim = shape = first.shape
    step = heads * dim
    strides = length * count * step, dim, count * step, 1
    start, memory = first.storage_offset(), first.untyped_storage().data_ptr()
    for place, one in enumerate(parts):
        if one.stride() != strides and not _strided(one, strides):
            return None
        if one.shape != shape or one.storage_offset() != start + place * step:
            return None
        if place and one.untyped_storage().data_ptr() != memory:
            return None
    whole = batch, length, count, heads, dim
    return first.detach().as_strided(whole, (strides[0], count * step, step, dim, 1))


def _strided(x: Tensor, strides: tuple[int, ...]) -> bool:
    """Whether a tensor has these strides on every axis that has more than one entry."""
    return all(one == want or size == 1 for one, want, size in zip(x.stride(), strides, x.shape, strict=True))
