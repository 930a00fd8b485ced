"""Recurrences step by step."""

from __future__ import annotations

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, initial: Tensor | None) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]`` along axis 1."""
    here = torch.zeros_like(b[:, 0]) if initial is None else initial
    steps = []
    for t in range(b.shape[1]):
        here = a[:, t] * here + b[:, t]
        steps.append(here)
    return torch.stack(steps, 1)
