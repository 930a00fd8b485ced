"""Large tables in huge pages, so that rows far apart do not each cost a walk through the page tables.

A step reads and writes some ten thousand rows anywhere in a table. In pages of 4 kB each of them is a page of
its own; in pages of 2 MB a table of a gigabyte has 500, whose addresses the processor keeps.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .c_library import c_function

_MADV_HUGEPAGE = 14
_LEAST = 8 << 20
"""Bytes below which the processor's page-table cache covers a table anyway."""
_PAGE = 4096


def empty_table(*size: int, like: Tensor) -> Tensor:
    """An uninitialised tensor of ``like``'s dtype and device, in huge pages where the system offers them.

    Args:
        size: shape.
        like: tensor whose dtype and device it takes.
    """
    made = like.new_empty(size)
    nbytes = made.numel() * made.element_size()
    if made.device.type == "cpu" and type(made) is Tensor and nbytes >= _LEAST:
        _advise(made.data_ptr(), nbytes)
    return made


def full_table(*size: int, value: float, like: Tensor) -> Tensor:
    """As :func:`empty_table`, filled with a number."""
    return empty_table(*size, like=like).fill_(value)


def _advise(start: int, nbytes: int) -> None:
    """Ask for huge pages: advice that the system may decline, so no error is one."""
    call = c_function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if call is not None:
        first = -(-start // _PAGE) * _PAGE
        call(first, start + nbytes - first, _MADV_HUGEPAGE)


def in_huge_pages(x: Tensor) -> Tensor:
    """A copy of a tensor made by :func:`empty_table`."""
    with torch.no_grad():
        return empty_table(*x.shape, like=x).copy_(x)
