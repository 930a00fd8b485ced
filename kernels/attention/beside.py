"""Few neighbours beside keys that all queries see, under one softmax, on the torch backend.

The logits of the neighbours are shifted products of two maps, which is the gradient of a dynamic convolution
by its filters, and their share of the output is such a convolution: nothing is gathered, one softmax takes
all logits, and weights that are added after it join its filters. Without gradients that takes a third to
three quarters of the time of merging two attentions by their log-sum-exps.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..conv.dynamic_registered import convolve, to_weight
from ..patterns import Full, Halo
from ..registering import listened_to
from ..remembered import kept
from .bias import RelativeBias
from .core import as_given, emulated, widened
from .dense import always_finite
from .source import Source

_MOST = 9
"""Neighbours of a query, itself included, up to which this was measured to pay."""


def takes(q: Tensor, sources: list[Source]) -> bool:
    """Whether the sources are a small neighborhood of a map, and keys that everyone sees."""
    if len(sources) != 2 or listened_to() or q.device.type != "cpu":
        return False
    if q.dtype.itemsize < 4 and not emulated(q.dtype):
        return False
    near, far = sources
    halo = near.pattern
    if not isinstance(halo, Halo) or len(halo.shape) != 2 or set(halo.block) != {1} or halo.border != "mask":
        return False
    if torch.Size(_kernel(halo)).numel() > _MOST or not isinstance(far.pattern or Full(), Full):
        return False
    if near.times is not None or far.times is not None or far.plus is not None:
        return False
    if isinstance(far.bias, RelativeBias) or any(one.k.shape[1] != q.shape[1] for one in sources):
        return False
    return _fits(near.bias, halo, 2) and _fits(near.plus, halo, 4) and always_finite(near.bias)


def _fits(table: Tensor | RelativeBias | None, halo: Halo, axes: int) -> bool:
    """Whether a table has one column for each neighbour."""
    if table is None:
        return True
    window = tuple(one + 1 for one in halo.halo)
    return isinstance(table, RelativeBias) and table.table.dim() == axes and table.window == window


def attend_beside(q: Tensor, near: Source, far: Source, scale: float) -> Tensor:
    """``softmax([near logits, far logits]) @ [near v, far v] + near plus @ near v``, (B, H, L, Dv).

    Emulated 16-bit types are computed in float32 and rounded once.
    """
    if not emulated(q.dtype):
        return _attend(q, near, far, scale)
    near, far = (one._replace(k=widened(one.k), v=widened(one.v)) for one in (near, far))
    return as_given(_attend)(widened(q), near, far, scale).to(q.dtype)


def _attend(q: Tensor, near: Source, far: Source, scale: float) -> Tensor:
    halo = near.pattern
    assert isinstance(halo, Halo)
    kernel = _kernel(halo)
    geometry = [*kernel, 1, 1, 1, 1, *halo.halo]
    batch, heads = q.shape[:2]
    scaled, shape = q * scale, halo.shape
    rest = geometry, "zero", False, "torch"
    local = to_weight(_as_map(scaled, shape), _as_map(near.k, shape), heads, *rest)  # [B, H, taps, H', W']
    term = _hidden(halo, q.dtype)  # [taps, L]
    if isinstance(near.bias, RelativeBias):
        term = near.bias.table.flip(-1).unsqueeze(-1).to(q.dtype) + term  # a tap is key minus query
    pooled = scaled @ far.k.mT
    if far.bias is not None:
        assert isinstance(far.bias, Tensor)
        pooled = pooled + far.bias.to(q.dtype)
    weights = torch.cat([(local.flatten(3) + term).mT, pooled], -1).softmax(-1)
    taps = weights[..., : local.shape[2]]
    if isinstance(near.plus, RelativeBias):
        taps = taps + near.plus.table.flip(-1).to(q.dtype)
    filters = taps.mT.unflatten(3, shape).expand(batch, heads, -1, *shape)
    mixed = convolve(_as_map(near.v, shape), filters, *rest)
    return mixed.unflatten(1, (heads, -1)).flatten(3).mT + weights[..., local.shape[2] :] @ far.v


def _kernel(halo: Halo) -> tuple[int, ...]:
    return tuple(2 * one + 1 for one in halo.halo)


def _as_map(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, H, L, D) to (B, H * D, height, width)."""
    return x.mT.flatten(1, 2).unflatten(2, shape)


@lru_cache(maxsize=64)
@kept
def _hidden(halo: Halo, dtype: torch.dtype) -> Tensor:
    """0 for the taps of every position that lie on the map, -inf beyond it, (taps, L)."""
    steps = [torch.arange(size) for size in _kernel(halo)]
    inside = torch.ones((), dtype=torch.bool)
    for axis, (size, far) in enumerate(zip(halo.shape, halo.halo, strict=True)):
        key = steps[axis].unsqueeze(1) - far + torch.arange(size)  # [taps of the axis, positions]
        seen = (key >= 0) & (key < size)
        inside = inside & (seen[:, None, :, None] if axis == 0 else seen[None, :, None, :])
    return torch.zeros(inside.shape, dtype=dtype).masked_fill(~inside, -torch.inf).flatten(2).flatten(0, 1)
