"""What is added to a softmax from outside: keys of value zero, and other softmaxes over other keys."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checking import check_floating
from ..patterns import Pattern
from .bias import RelativeBias
from .checks import per_query
from .gather import phantoms_for
from .source import Weights


def total_sink(q: Tensor, pattern: Pattern, bias: Weights | None, sink: Tensor | None) -> Tensor | None:
    """The logit of all zero keys together, (B or 1, H or 1, Lq or 1): the caller's and a zero border's."""
    given = (
        None if sink is None else per_query(sink, q, "sink").to(torch.promote_types(q.dtype, torch.float32))
    )
    found = phantoms_for(pattern, q.shape[2])
    if found is None:
        return given
    if isinstance(bias, RelativeBias):
        border = bias.phantom(*found).to(torch.promote_types(q.dtype, torch.float32))
    else:
        border = found[1].sum(-1).to(q.device, torch.promote_types(q.dtype, torch.float32)).log()[None, None]
    return border if given is None else log_add(given, border)


def log_add(one: Tensor, other: Tensor) -> Tensor:
    """``log(exp(one) + exp(other))`` with right values and gradients where either or both are -inf."""
    high = torch.maximum(one, other).detach()
    base = torch.where(high == -torch.inf, 0, high)
    total = (one - base).exp() + (other - base).exp()
    none = total == 0
    return torch.where(none, -torch.inf, base + torch.where(none, 1, total).log())


def add_sink(out: Tensor, lse: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax widened by a key of value zero: every weight shrinks alike."""
    total = log_add(lse, sink)
    share = (lse - torch.where(total == -torch.inf, 0, total)).exp()
    return out * share.unsqueeze(-1).to(out.dtype), total.expand(lse.shape)


def merge(outputs: list[Tensor], lses: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over disjoint sets of keys, from the attention over each.

    Args:
        outputs: each (B, H, Lq, Dv).
        lses: each (B, H, Lq), as ``attention(..., return_lse=True)`` gives them.

    Returns:
        Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq) over all keys. A key in two sets counts twice.

    Raises:
        ValueError: the lists differ in length, are empty, or shapes or devices differ.
    """
    if not outputs or len(outputs) != len(lses):
        raise ValueError(
            f"merge needs as many outputs as lses, at least one: got {len(outputs)} and {len(lses)}"
        )
    for out, lse in zip(outputs, lses, strict=True):
        if out.shape != outputs[0].shape or lse.shape != out.shape[:-1]:
            found, want = f"{tuple(out.shape)} and {tuple(lse.shape)}", tuple(outputs[0].shape)
            raise ValueError(f"outputs and lses of shape {found} must be {want} and {want[:-1]}")
    check_floating(
        **{f"outputs[{place}]": out for place, out in enumerate(outputs)},
        **{f"lses[{place}]": lse for place, lse in enumerate(lses)},
    )
    total = lses[0]
    for lse in lses[1:]:
        total = log_add(total, lse)
    base = torch.where(total == -torch.inf, 0, total)
    parts = [
        out * (lse - base).exp().unsqueeze(-1).to(out.dtype) for out, lse in zip(outputs, lses, strict=True)
    ]
    return torch.stack(parts).sum(0), total
