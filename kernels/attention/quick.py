"""The short way through attention: few keys that all queries see, on a CPU, in evaluation.

There the arithmetic takes less time than the questions that are asked before it; only the cheapest are asked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import asking
from ..registering import listened_to
from ..tally import active_tally
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
    size, shown = q.shape, k.shape
    if not len(size) == len(shown) == v.dim() == 4 or not (few(q, k) or _narrow(q, k, v)):
        return None
    if size[:2] != shown[:2] or v.shape[:3] != shown[:3] or size[3] != shown[3] or active_tally() is not None:
        return None
    if torch.is_autocast_enabled("cpu") or not (_wide(q) and _wide(k) and _wide(v)):
        return None
    factor = size[3] ** -0.5 if scale is None else scale
    many = size[0] * size[1]
    queries, keys, values = (one.reshape(many, *one.shape[2:]) for one in (q, k, v))
    if bias is None:
        logits = torch.bmm(queries, keys.mT).mul_(factor)
    else:
        pairs = (*size[:3], shown[2])
        if not _wide(bias) or not broadcasts(bias, pairs):
            return None
        if float(bias.min()) == -torch.inf:  # a query may see nothing
            return None
        logits = torch.baddbmm(bias.expand(pairs).reshape(many, *pairs[2:]), queries, keys.mT, alpha=factor)
    weights = torch.softmax(logits, -1)
    if values.stride(1) == 1:  # as a convolution leaves it: so is the output
        return torch.bmm(values.mT, weights.mT).mT.view(*size[:3], v.shape[3])
    return torch.bmm(weights, values).view(*size[:3], v.shape[3])


def few(q: Tensor, k: Tensor) -> bool:
    """Whether there are so few pairs in all heads that the calls take longer than the arithmetic."""
    return 0 < q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] <= _PAIRS


def unusual(q: Tensor, v: Tensor) -> bool:
    """Whether heads are narrow, or those of values of another width: torch's attention is slow then."""
    return q.shape[-1] < 16 or q.shape[-1] != v.shape[-1]


def _narrow(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether plain products beat torch's fused attention for heads that it is not made for."""
    return 0 < q.shape[2] * k.shape[2] <= SMALL_GROUP**2 and unusual(q, v)


def _wide(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.is_cpu
