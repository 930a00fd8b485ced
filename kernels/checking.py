"""Checks of arguments that operators share."""

from __future__ import annotations

from torch import Tensor


def check_floating(**given: Tensor | None) -> None:
    """Raise ValueError, naming the argument, unless all tensors are floating point and on one device."""
    first: tuple[str, Tensor] | None = None
    for name, one in given.items():
        if one is None:
            continue
        if not one.is_floating_point():
            raise ValueError(f"{name} of shape {tuple(one.shape)} must be floating point, got {one.dtype}")
        first = first or (name, one)
        if one.device != first[1].device:
            raise ValueError(f"{name} is on {one.device} and must be on {first[1].device}, like {first[0]}")
