"""Checks of arguments that operators share."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

_seen: dict[int, tuple[weakref.ref[Tensor], int, object, tuple[Tensor, ...]]] = {}
"""By a tensor's ``id``: itself, its version, what it was found fit for, and what was made of it."""


def unreadable(x: Tensor) -> bool:
    """Whether no numbers can be looked at: a compiler is tracing, or a CUDA graph is being captured."""
    return torch.compiler.is_compiling() or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def checked(x: Tensor, what: object) -> bool:
    """Whether :func:`remember` was told of this tensor with an equal ``what``, and it is unchanged since."""
    return recalled(x, what) is not None


def recalled(x: Tensor, what: object) -> tuple[Tensor, ...] | None:
    """What :func:`remember` was given with this tensor and an equal ``what``, if the tensor is unchanged."""
    held = _seen.get(id(x))
    if held is None or held[0]() is not x or x.is_inference() or held[1:3] != (x._version, what):
        return None
    return held[3]


def remember(x: Tensor, what: object, *made: Tensor) -> None:
    """Spare later calls the look at a tensor's numbers, for which the GPU would have to be waited for.

    Args:
        x: the tensor.
        what: what it was found fit for.
        made: made of it, to be used again; neither it nor a view of it, which would keep it alive.
    """
    if x.is_inference() or not x.untyped_storage().resizable():
        return  # the first has no version; of the other's numbers numpy, say, may change some unnoticed
    place = id(x)
    _seen[place] = weakref.ref(x, lambda _: _seen.pop(place, None)), x._version, what, made


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
