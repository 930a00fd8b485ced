"""Graph operators edge by edge: gather, combine, add up. The truth that the other backends are held to."""

from __future__ import annotations

import torch
from torch import Tensor

from .csr import CSR


def segment_reduce(x: Tensor, ptr: Tensor, reduce: str) -> Tensor:
    """See :func:`graphrec.kernels.segment_reduce`."""
    rows = len(ptr) - 1
    row = torch.repeat_interleave(torch.arange(rows, device=x.device), ptr.diff())
    if reduce == "max":
        place = row.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
        low = x.new_full((rows, *x.shape[1:]), -torch.inf)  # torch counts a start of 0 among the ties of 0
        high = low.scatter_reduce(0, place, x, "amax")
        return torch.where(ptr.diff().view(-1, *[1] * (x.dim() - 1)) > 0, high, 0)
    total = x.new_zeros(rows, *x.shape[1:]).index_add(0, row, x)
    if reduce == "sum":
        return total
    return total / ptr.diff().clamp(min=1).view(-1, *[1] * (x.dim() - 1)).to(x.dtype)


def spmm(graph: CSR, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """See :func:`graphrec.kernels.spmm`."""
    messages = x[graph.index]
    if weight is not None:
        messages = messages * weight.unsqueeze(-1)
    return segment_reduce(messages, graph.ptr, reduce)


def sddmm(graph: CSR, a: Tensor, b: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.sddmm`."""
    return (a[graph.row] * b[graph.index]).sum(-1)


def edge_softmax(graph: CSR, scores: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.edge_softmax`."""
    high = segment_reduce(scores.detach(), graph.ptr, "max")[graph.row]
    weights = (scores - high).exp()
    return weights / segment_reduce(weights, graph.ptr, "sum")[graph.row]


def edge_attention(graph: CSR, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """See :func:`graphrec.kernels.edge_attention`."""
    scores = (q[graph.row] * k[graph.index]).sum(-1) * scale
    weights = edge_softmax(graph, scores if bias is None else scores + bias)
    return segment_reduce(weights.unsqueeze(-1) * v[graph.index], graph.ptr, "sum")
