"""What ``things[index]`` names, in the ways of lists, of numpy and of scikit-learn's cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import DataError


def item_index(index: Any, total: int, what: str) -> Tensor:
    """Numbers of things, int64 (n,).

    Args:
        index: A number, a slice, numbers or a mask (total,); also with an ellipsis behind it, as scikit-learn
            indexes whatever has a shape.
        total: How many there are.
        what: What one is called.

    Raises:
        IndexError: A number or a mask does not fit.
    """
    if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
        index = index[0]
    if isinstance(index, slice):
        return torch.arange(total)[index]
    chosen = torch.as_tensor(index)
    if chosen.dtype == torch.bool:
        if chosen.shape != (total,):
            raise IndexError(f"a mask of shape {tuple(chosen.shape)} for {total} {what}s")
        return chosen.nonzero().flatten()
    if len(chosen := chosen.flatten()) and (chosen.is_floating_point() or chosen.is_complex()):
        raise IndexError(f"{what}s are numbered by whole numbers, found {chosen.dtype}")
    chosen = chosen.to(torch.int64)
    if len(chosen) and not -total <= int(chosen.min()) <= int(chosen.max()) < total:
        wrong = chosen[(chosen < -total) | (chosen >= total)][0]
        raise IndexError(f"{what} {int(wrong)} of {total}")
    return chosen % max(total, 1)


def many(index: Any) -> bool:
    """Whether an index is a list of numbers or a mask, as scikit-learn draws folds, not one or a slice."""
    if isinstance(index, tuple):
        index = index[0]
    return not isinstance(index, slice) and np.ndim(index) > 0


def refuse_parted(group: Tensor, chosen: Tensor, message: str) -> None:
    """Refuse to take a part of a group that gives the rest of it away.

    Args:
        group: Of each thing, int64 (n,).
        chosen: Those that are taken.
        message: With ``{}`` for the group's number.

    Raises:
        DataError: Some of a group are taken and some are not.
    """
    taken = torch.zeros(len(group), dtype=torch.bool)
    taken[chosen] = True
    size = int(group.max()) + 1 if len(group) else 0
    share = torch.bincount(group[taken], minlength=size)
    parted = ((share > 0) & (share < torch.bincount(group, minlength=size))).nonzero().flatten()
    if len(parted):
        raise DataError(message.format(int(parted[0])))
