"""The short way through attention where all queries see all keys, on a CPU.

With few keys the arithmetic takes less time than the questions that are asked before it; only the cheapest
are asked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import asking
from ..registering import listened_to
from ..tally import counting
from .checks import broadcasts
from .gather import SMALL_GROUP
from .watching import WATCHERS

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_PAIRS = 1 << 14
"""Of all heads; above that torch's fused attention wins."""


def small_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None
) -> Tensor | None:
    """Softmax attention of all to all, ``bias`` (B, H, Lq, Lk) or with ones for its axes.

    Returns:
        (B, H, Lq, Dv); None where the long way has to be taken, as with inputs that do not fit each other.
    """
    if WATCHERS or type(q) is not Tensor or listened_to() or asking():
        return None
    size, shown, given = q.shape, k.shape, v.shape
    if not len(size) == len(shown) == len(given) == 4:
        return None
    batch, heads, length, dim = size
    keys, wide = shown[2], given[3]
    if not (q.dtype is k.dtype is v.dtype and q.is_cpu and k.is_cpu and v.is_cpu) or counting():
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    if dim == wide and _fused(q, k, v):
        if 0 in size or 0 in shown or heads % shown[1] or not shown == given == (batch, shown[1], keys, dim):
            return None
        if bias is not None and not _plain_bias(bias, q, (batch, heads, length, keys)):
            return None
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, scale=scale, enable_gqa=heads != shown[1]
        )
    if torch.is_grad_enabled() or q.dtype is not torch.float32:
        return None
    if not (_few(batch * heads, length * keys) or _narrow(length * keys, dim, wide)):
        return None
    if shown != (batch, heads, keys, dim) or given != (batch, heads, keys, wide):
        return None
    factor = dim**-0.5 if scale is None else scale
    queries, others, values = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    if bias is None:
        logits = torch.bmm(queries, others.mT).mul_(factor)
    else:
        addend = _addend(bias, q, (batch, heads, length, keys))
        if addend is None:
            return None
        logits = torch.baddbmm(addend, queries, others.mT, alpha=factor)
    weights = torch.softmax(logits, -1)
    if values.stride(1) == 1:  # as a convolution leaves it: so is the output
        return torch.bmm(values.mT, weights.mT).mT.view(batch, heads, length, wide)
    return torch.bmm(weights, values).view(batch, heads, length, wide)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's fused attention takes these heads, as wide as their values, and is fast.

    Of 16 bits it has a slow gradient, and for narrow heads none that beats plain products.
    """
    if q.stride(3) != 1 or k.stride(3) != 1 or v.stride(3) != 1:
        return False
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return q.dtype is torch.float32 and not unusual(q, v)
    return q.dtype in _DTYPES


def _plain_bias(bias: Tensor, q: Tensor, pairs: tuple[int, int, int, int]) -> bool:
    """Whether a bias fits, has no gradient, and hides no pair: a query might see nothing."""
    if bias.dtype is not q.dtype or not bias.is_cpu:
        return False
    if (bias.requires_grad and torch.is_grad_enabled()) or not broadcasts(bias, pairs):
        return False
    return bias.numel() > 0 and bias.min().item() != -torch.inf


def _addend(bias: Tensor, q: Tensor, pairs: tuple[int, int, int, int]) -> Tensor | None:
    """A bias as batched products take it, (1 or B * H, Lq, Lk); None where the long way has to look."""
    if not _plain_bias(bias, q, pairs):
        return None
    if bias.shape == (1, 1, *pairs[2:]):
        return bias.squeeze(0)
    return bias.expand(pairs).flatten(0, 1)


def few(q: Tensor, k: Tensor) -> bool:
    """Whether there are so few pairs in all heads that the calls take longer than the arithmetic."""
    return _few(q.shape[0] * q.shape[1], q.shape[2] * k.shape[2])


def unusual(q: Tensor, v: Tensor) -> bool:
    """Whether heads are narrow, or those of values of another width: torch's attention is slow then."""
    return _unusual(q.shape[-1], v.shape[-1])


def _few(many: int, pairs: int) -> bool:
    return 0 < many * pairs <= _PAIRS


def _unusual(dim: int, wide: int) -> bool:
    return dim < 16 or dim != wide


def _narrow(pairs: int, dim: int, wide: int) -> bool:
    """Whether plain products beat torch's fused attention for heads that it is not made for."""
    return 0 < pairs <= SMALL_GROUP**2 and _unusual(dim, wide)
