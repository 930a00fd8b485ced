"""Gathering rows of a table, whose gradient is a sparse tensor with one entry per distinct row."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo


class Groups(NamedTuple):
    """Places of equal ids.

    Attributes:
        rows: The distinct ids in ascending order, (u,) int64.
        counts: How often each occurs, (u,).
        order: Places of the first id, then of the second, and so on, (n,) int64.
    """

    rows: Tensor
    counts: Tensor
    order: Tensor


_last: tuple[Tensor, Groups] | None = None
"""Models with several tables of the same ids (factors and weights) sort them once in a step, not for each."""


def group_ids(index: Tensor) -> Groups:
    """Sort ids (n,), or say again what the last call found for the same ones."""
    global _last
    known = _last  # read once: another thread may train too
    compared = index.device.type == "cpu"  # elsewhere a comparison waits
    if compared and known is not None and known[0].dtype == index.dtype and torch.equal(known[0], index):
        return known[1]
    ordered, order = index.sort(stable=True)
    rows, counts = ordered.unique_consecutive(return_counts=True)
    groups = Groups(rows.long(), counts, order)
    if compared:
        _last = (index.clone(), groups)
    return groups


def sum_rows(index: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the rows of ``values`` that share an index.

    Args:
        index: (n,) integer ids.
        values: (n, d) rows.

    Returns:
        The distinct ids in ascending order, (u,) int64, their sums, (u, d), and how often each occurs, (u,).
        Sorting and bagging are cheaper on a CPU than `torch.Tensor.coalesce`.
    """
    rows, counts, order = group_ids(index)
    sums = nn.functional.embedding_bag(order, values, counts.cumsum(0) - counts, mode="sum")
    return rows, sums, counts


class _RowGather(torch.autograd.Function):
    """``weight[index]`` whose gradient is a coalesced sparse COO tensor.

    With ``decay`` (one number per row of ``weight``), each occurrence of a row adds
    ``scale * decay[row] * weight[row]`` to its gradient.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor, decay: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(weight, index, decay)
        ctx.scale = scale
        return weight.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        weight, index, decay = ctx.saved_tensors
        rows, sums, counts = sum_rows(index, grad)
        if decay is not None:
            pull = decay.index_select(0, rows) * counts
            sums.addcmul_(pull[:, None], weight.index_select(0, rows), value=ctx.scale)
        with torch.sparse.check_sparse_tensor_invariants(enable=False):  # said aloud, or torch 2.11 warns
            grad = torch.sparse_coo_tensor(rows[None], sums, weight.shape, is_coalesced=True)
        return grad, None, None, None


@_disable_dynamo  # torch.compiler.disable, which would load the compiler here and now: seconds
def gather_sparse(weight: Tensor, index: Tensor, decay: Tensor | None, scale: float) -> Tensor:
    """``weight[index]`` with row gradients; see `_RowGather`."""
    return _RowGather.apply(weight, index, decay, scale)
