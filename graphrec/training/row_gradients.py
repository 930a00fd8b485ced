"""Sparse gradients of tables: one entry per touched row."""

from __future__ import annotations

from torch import Tensor


def merge_rows(grad: Tensor) -> Tensor:
    """A sparse COO gradient with one entry per row, in ascending order.

    Autograd passes on a gradient that is in this form without the mark that says so, hence a look before
    anything is sorted.

    Args:
        grad: (rows, ...), sparse in its first axis.
    """
    if grad.is_coalesced():
        return grad
    rows = grad._indices()
    if len(rows) == 1 and bool((rows[0, 1:] > rows[0, :-1]).all()):
        return grad._coalesced_(True)
    return grad.coalesce()


def rows_and_values(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows (u,) in ascending order and their summed gradients (u, d) of a sparse COO gradient."""
    merged = merge_rows(grad)
    return merged._indices()[0], merged._values()
