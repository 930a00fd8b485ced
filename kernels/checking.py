"""Checks of arguments that operators share."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

_seen: dict[int, tuple[weakref.ref[Tensor], int, object]] = {}
"""By a tensor's ``id``: itself, its version, and what it was found fit for."""


def unreadable() -> bool:
    """Whether no numbers can be looked at: a compiler is tracing, or a CUDA graph is being captured."""
    return torch.compiler.is_compiling() or (
        torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    )


def checked(x: Tensor, what: object) -> bool:
    """Whether :func:`remember` was told of this tensor with an equal ``what``, and it is unchanged since."""
    held = _seen.get(id(x))
    return held is not None and held[0]() is x and not x.is_inference() and held[1:] == (x._version, what)


def remember(x: Tensor, what: object) -> None:
    """Spare later calls the look at a tensor's numbers, for which the GPU would have to be waited for."""
    if x.is_inference():  # has no version
        return
    place = id(x)
    _seen[place] = weakref.ref(x, lambda _: _seen.pop(place, None)), x._version, what


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
