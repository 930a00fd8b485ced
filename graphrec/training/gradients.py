"""Clipping over dense gradients and row gradients together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .row_gradients import merge_rows


def gradient_values(params: Iterable[nn.Parameter]) -> list[Tensor]:
    """The tensors that hold the gradients: dense ones, and the values of sparse ones (coalesced first)."""
    values = []
    for param in params:
        if param.grad is None:
            continue
        if param.grad.is_sparse:
            param.grad = merge_rows(param.grad)
            values.append(param.grad._values())
        else:
            values.append(param.grad)
    return values


_FEW = 1 << 18
"""Numbers whose copy costs less than a call for each tensor."""


def _total_norm(values: list[Tensor]) -> Tensor:
    """Their common 2-norm; small ones are copied side by side, one norm in place of one for each."""
    alike = len({(one.dtype, one.device) for one in values}) == 1
    if alike and len(values) > 1 and sum(one.numel() for one in values) <= _FEW:
        return torch.linalg.vector_norm(torch.cat([one.reshape(-1) for one in values]))
    return nn.utils.get_total_norm(values)


@torch.no_grad()
def clip_gradients(params: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients so that their common 2-norm is at most ``max_norm``.

    Returns:
        The norm before. When it is not finite the gradients are left as they are.
    """
    values = gradient_values(params)
    norm = float(_total_norm(values)) if values else 0.0
    if max_norm < norm < float("inf"):
        torch._foreach_mul_(values, max_norm / norm)
    return norm
