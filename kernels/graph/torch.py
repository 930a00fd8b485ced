"""Graph operators in plain torch: sums of gathered rows over the graph or its transpose, never scattered
addition.

On a CPU ``embedding_bag`` adds up rows per node, and ``sampled_addmm`` multiplies rows per edge, many times
faster than ``index_add`` or products of gathered rows, which write and read one row per edge.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .registered import Walk

_CHUNK = 1 << 18
"""Numbers of gathered rows at a time, to stay in the cache."""


def sums(owners: Walk, x: Tensor, weight: Tensor | None) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.sums`."""
    count = owners.ptr.shape[0] - 1
    if owners.other.shape[0] == 0 or x.numel() == 0:
        return x.new_zeros(count, *x.shape[1:])
    if weight is not None and owners.order is not None:
        weight = weight.index_select(0, owners.order)
    if x.dim() == 2:
        return _bags(owners, x, weight)
    if weight is None:
        return _bags(owners, x.flatten(1), None).view(count, *x.shape[1:])
    if x.shape[1] == 1:
        return _bags(owners, x.flatten(1), weight.flatten()).unsqueeze(1)
    heads = [_bags(owners, x[:, head], weight[:, head]) for head in range(x.shape[1])]
    return torch.stack(heads, 1)


def _bags(owners: Walk, x: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted sums of rows of (N, D)."""
    weight = None if weight is None else weight.contiguous()
    x = x.detach().contiguous()  # else torch makes what its own backward would need
    # mode 0 is the sum; torch.nn.functional's embedding_bag takes as long again to call this
    return torch.embedding_bag(x, owners.other, owners.ptr, False, 0, False, weight, True)[0]


def products(graph: list[Tensor], a: Tensor, b: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.products`."""
    ptr, index, row = graph[:3]
    if len(index) == 0 or a.numel() == 0 or b.numel() == 0:
        return a.new_zeros(len(index), a.shape[1])
    possible = len(index) <= len(a) * len(b)  # sampled_addmm drops what goes beyond
    if possible and a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64):
        heads = [_sampled(ptr, index, a[:, head], b[:, head]) for head in range(a.shape[1])]
        return torch.stack(heads, 1)
    step = max(1, _CHUNK // max(a[0].numel(), 1))
    parts = [
        (a.index_select(0, i) * b.index_select(0, j)).sum(-1)
        for i, j in zip(row.split(step), index.split(step), strict=True)
    ]
    return torch.cat(parts)


def _sampled(ptr: Tensor, index: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` at the edges only, (E,)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        out = torch.sparse_csr_tensor(
            ptr, index, a.new_zeros(len(index)), (len(a), len(b)), check_invariants=False
        )
    return torch.sparse.sampled_addmm(out, a.contiguous(), b.contiguous().mT, beta=0, out=out).values()


def softmax(graph: list[Tensor], scores: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.softmax`."""
    ptr, index, row = graph[:3]
    if len(index) == 0 or scores.numel() == 0:
        return scores.clone(memory_format=torch.contiguous_format)
    scores = scores.contiguous()
    high = torch.segment_reduce(scores, "max", offsets=ptr, axis=0, initial=None)
    high = torch.where(high.isfinite(), high, 0)
    weights = (scores - high.index_select(0, row)).exp_()
    weights /= _row_totals(ptr, weights).index_select(0, row)
    return weights


def softmax_backward(graph: list[Tensor], weights: Tensor, grad: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.softmax_backward`."""
    scaled = grad * weights
    if scaled.numel() == 0:
        return scaled.contiguous()
    totals = _row_totals(graph[0], scaled.contiguous()).index_select(0, graph[2])
    return (weights * (grad - totals)).contiguous()


def _row_totals(ptr: Tensor, x: Tensor) -> Tensor:
    return torch.segment_reduce(x, "sum", offsets=ptr, axis=0, initial=0)


def _buckets(ptr: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Owners of about equal degree together, some at a time.

    Degrees are rounded up to three leading bits, so padding adds at most a quarter and there are four widths
    per power of two.

    Yields:
        Owners (n,), the edges of each (n, k), where its first edge fills the row up, and which are not
        filling (n, k).
    """
    degree = ptr.diff().long()
    step = (1 << (degree.clamp(min=1).log2().floor().long() - 2).clamp(min=0)).clamp(min=1)
    padded = (degree + step - 1) // step * step
    widths, order = padded.sort(stable=True)
    for size, count in zip(
        *(one.tolist() for one in widths.unique_consecutive(return_counts=True)), strict=True
    ):
        owners, order = order[:count], order[count:]
        if size == 0:
            continue
        for some in owners.split(max(1, _CHUNK // (size * max(width, 1)))):
            place = torch.arange(size, device=ptr.device)
            real = place < degree[some].unsqueeze(1)
            yield some, ptr[some].long().unsqueeze(1) + torch.where(real, place, 0), real


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[index]`` of (N, D) by (n, k), memory of its own."""
    return x.index_select(0, index.flatten()).view(*index.shape, x.shape[1])


def maxima(owners: Walk, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`graphrec.kernels.graph.registered.maxima`."""
    count = len(owners.ptr) - 1
    out = x.new_zeros(count, x.shape[1])
    ties = torch.zeros(count, x.shape[1], dtype=torch.int32, device=x.device)
    for some, edges, real in _buckets(owners.ptr, x.shape[1]):
        values = _rows(x, owners.other[edges])
        if weight is not None:
            values *= weight[edges].unsqueeze(-1)
        top = values.amax(1)
        hit = torch.eq(values, top.unsqueeze(1), out=values)
        filling = (~real).sum(1, keepdim=True) * hit[:, 0]
        out[some], ties[some] = top, (hit.sum(1, dtype=torch.float32) - filling).int()
    return out, ties


def maxima_to_nodes(leaving: Walk, share: Tensor, out: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    """Gradient of (columns, D): every edge that reaches a maximum passes on its share."""
    dx = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    count = len(out)
    share, out = (F.pad(one, (0, 0, 0, 1)) for one in (share, out))  # filling edges lead to a row of zeros
    for some, edges, real in _buckets(leaving.ptr, x.shape[1]):
        rows = torch.where(real, leaving.other[edges], count)
        found, given, sent = _rows(out, rows), _rows(share, rows), x[some].unsqueeze(1)
        if weight is not None:
            assert leaving.order is not None
            factor = weight[leaving.order[edges]].unsqueeze(-1)
            given *= factor
            sent = sent * factor
        dx[some] = given.mul_(torch.eq(found, sent, out=found)).sum(1)
    return dx


def maxima_to_edges(graph: list[Tensor], share: Tensor, out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of (E,)."""
    step = max(1, _CHUNK // max(x.shape[1], 1))
    parts = []
    for i, j, factor in zip(graph[2].split(step), graph[1].split(step), weight.split(step), strict=True):
        sent, found, given = x.index_select(0, j), out.index_select(0, i), share.index_select(0, i)
        given *= sent
        hit = torch.eq(found, sent.mul_(factor.unsqueeze(-1)), out=found)
        parts.append(given.mul_(hit).sum(-1))
    return torch.cat(parts) if parts else weight.new_zeros(0)
