"""Fold what is only needed for training into what remains."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

_Model = TypeVar("_Model", bound=nn.Module)


def fuse(model: _Model) -> _Model:
    """A copy of a model for deployment: in evaluation mode, every part that can be is folded.

    A part that can be folded has a method ``fused()`` which returns the module that takes its place; parts of
    parts come first. The copy computes the same up to rounding and is no longer for training or for loading
    checkpoints.
    """
    copied = copy.deepcopy(model).eval()
    _fold_children(copied)
    fold = getattr(copied, "fused", None)
    return fold().eval() if callable(fold) else copied


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        _fold_children(child)
        fold = getattr(child, "fused", None)
        if callable(fold):
            setattr(module, name, fold().eval())
