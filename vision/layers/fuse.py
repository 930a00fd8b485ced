"""Fold what is only needed for training into what remains."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

_Model = TypeVar("_Model", bound=nn.Module)
_MARK = "_fused"


def fuse(model: _Model) -> _Model:
    """A copy of a model for deployment: in evaluation mode, every part that can be is folded.

    A part that can be folded has a method ``fused()`` which returns the module that takes its place; parts of
    parts come first. The copy computes the same up to rounding and is no longer for training or for loading
    checkpoints; `is_fused` knows it.
    """
    copied = copy.deepcopy(model).eval()
    _fold_children(copied)
    fold = getattr(copied, "fused", None)
    found = fold().eval() if callable(fold) else copied
    vars(found)[_MARK] = True
    return found


def is_fused(model: nn.Module) -> bool:
    """Whether `fuse` made this model, whose weights have other names than those of a model for training."""
    return _MARK in vars(model)


def _fold_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        _fold_children(child)
        fold = getattr(child, "fused", None)
        if callable(fold):
            setattr(module, name, fold().eval())
