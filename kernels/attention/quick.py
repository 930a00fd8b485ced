"""The short way through attention: few keys that all queries see, on a CPU, in evaluation.

There the arithmetic takes less time than the questions that are asked before it; only the cheapest are asked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import asking
from ..registering import listened_to
from ..tally import counting
from .checks import broadcasts
from .gather import SMALL_GROUP
from .watching import WATCHERS

_PAIRS = 1 << 14
"""Of all heads; above that torch's fused attention wins."""


def small_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None
) -> Tensor | None:
    """Softmax attention of all to all, ``bias`` (B, H, Lq, Lk) or with ones for its axes.

    Returns:
        (B, H, Lq, Dv); None where the long way has to be taken, as with inputs that do not fit each other.
    """
    if torch.is_grad_enabled() or WATCHERS or type(q) is not Tensor or listened_to() or asking():
        return None
    size, shown, given = q.shape, k.shape, v.shape
    if not len(size) == len(shown) == len(given) == 4:
        return None
    batch, heads, length, dim = size
    keys, wide = shown[2], given[3]
    if not (_few(batch * heads, length * keys) or _narrow(length * keys, dim, wide)):
        return None
    if shown != (batch, heads, keys, dim) or given != (batch, heads, keys, wide) or counting():
        return None
    if not (q.dtype is k.dtype is v.dtype is torch.float32 and q.is_cpu and k.is_cpu and v.is_cpu):
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    factor = dim**-0.5 if scale is None else scale
    queries, others, values = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    if bias is None:
        logits = torch.bmm(queries, others.mT).mul_(factor)
    else:
        addend = _addend(bias, (batch, heads, length, keys))
        if addend is None:
            return None
        logits = torch.baddbmm(addend, queries, others.mT, alpha=factor)
    weights = torch.softmax(logits, -1)
    if values.stride(1) == 1:  # as a convolution leaves it: so is the output
        return torch.bmm(values.mT, weights.mT).mT.view(batch, heads, length, wide)
    return torch.bmm(weights, values).view(batch, heads, length, wide)


def _addend(bias: Tensor, pairs: tuple[int, int, int, int]) -> Tensor | None:
    """A bias as batched products take it, (1 or B * H, Lq, Lk); None where the long way has to look."""
    if bias.dtype is not torch.float32 or not bias.is_cpu or not broadcasts(bias, pairs):
        return None
    if bias.numel() == 0 or bias.min().item() == -torch.inf:  # a query may see nothing
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
