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

from .csr import rows_of
from .registered import Walk

_CHUNK = 1 << 18
"""Numbers of gathered rows at a time, to stay in the cache."""
_VECTOR = 16
"""Numbers of a row from which on maxima are taken by whole rows."""
_EIGHT = 8
"""Numbers that a vector of AVX2 holds."""
_CALL = 1 << 15
"""Numbers that are gathered and multiplied in the time that the call of a sparse product takes."""
_SPARSE = 8
"""Nodes per edge from which on a sparse product, which visits them all, takes longer than its edges."""


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
    many = len(index) * a.shape[2] > _CALL and len(a) < _SPARSE * len(index)
    if many and possible and a.device.type == "cpu" and a.dtype in (torch.float32, torch.float64):
        short = -a.shape[2] % _EIGHT if a.shape[2] > 1 else 0
        if short:  # numbers beyond a vector are multiplied one by one, which takes longer than all vectors
            a, b = F.pad(a, (0, short)), F.pad(b, (0, short))
        heads = [_sampled(ptr, index, a[:, head], b[:, head]) for head in range(a.shape[1])]
        return torch.stack(heads, 1)
    step = max(1, _CHUNK // max(a[0].numel(), 1))
    if len(index) <= step:
        return _gathered(a, b, row, index)
    pairs = zip(row.split(step), index.split(step), strict=True)
    return torch.cat([_gathered(a, b, *each) for each in pairs])


def _gathered(a: Tensor, b: Tensor, row: Tensor, index: Tensor) -> Tensor:
    """Products of gathered rows."""
    return a.index_select(0, row).mul_(b.index_select(0, index)).sum(-1)


def _sampled(ptr: Tensor, index: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` at the edges only, (E,)."""
    with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(enable=False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        out = torch.sparse_csr_tensor(ptr, index, a.new_zeros(len(index)), (len(a), len(b)))
    return torch.sparse.sampled_addmm(out, a.contiguous(), b.contiguous().mT, beta=0, out=out).values()


def softmax(graph: list[Tensor], scores: Tensor) -> Tensor:
    """See :func:`graphrec.kernels.graph.registered.softmax`."""
    ptr, index, row = graph[:3]
    if len(index) == 0 or scores.numel() == 0:
        return scores.clone(memory_format=torch.contiguous_format)
    scores = scores.contiguous()
    high = _largest(scores, ptr, row).nan_to_num_(0, 0, 0)  # rows of -inf alone, and without edges
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
    """Sums of runs of rows (E, D)."""
    return _bags(Walk(ptr, torch.arange(x.shape[0], device=x.device, dtype=ptr.dtype), None), x, None)


def _runs(ptr: Tensor, edges: int, width: int) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Owners that follow each other, as many at a time as have some :data:`_CHUNK` numbers on their edges.

    Yields:
        Owners, their edges, where those of each begin and end among them, and the owner of each.
    """
    owners, step = ptr.shape[0] - 1, max(1, _CHUNK // max(width, 1))
    if edges <= step:
        if edges:
            yield slice(0, owners), slice(0, edges), ptr, rows_of(ptr.diff(), edges)
        return
    inner = torch.searchsorted(ptr, torch.arange(step, edges, step, device=ptr.device, dtype=ptr.dtype))
    cuts = [0, *inner.unique_consecutive().tolist(), owners]
    ends = ptr[torch.tensor(cuts, device=ptr.device)].tolist()
    for low, high, first, last in zip(cuts, cuts[1:], ends, ends[1:], strict=False):
        if last > first:
            own = ptr[low : high + 1] - first
            yield slice(low, high), slice(first, last), own, rows_of(own.diff(), last - first)


def _largest(x: Tensor, ptr: Tensor, row: Tensor) -> Tensor:
    """Maxima of runs of rows (E, D); of an empty run 0 or -inf.

    torch's maxima by segments go through memory number by number, those by places a row at a time where rows
    are as long as a vector of the processor.
    """
    if x.shape[1] < _VECTOR:
        return torch.segment_reduce(x, "max", offsets=ptr, axis=0, initial=None)
    place = row.long().unsqueeze(-1).expand(x.shape)
    return x.new_zeros(ptr.shape[0] - 1, x.shape[1]).scatter_reduce_(0, place, x, "amax", include_self=False)


def maxima(owners: Walk, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """See :func:`graphrec.kernels.graph.registered.maxima`."""
    shape = (owners.ptr.shape[0] - 1, x.shape[1])
    out, ties = x.new_zeros(shape), torch.zeros(shape, dtype=torch.int32, device=x.device)
    if x.numel() == 0:
        return out, ties
    for some, edges, ptr, row in _runs(owners.ptr, owners.other.shape[0], x.shape[1]):
        values = x.index_select(0, owners.other[edges])
        if weight is not None:
            values *= weight[edges].unsqueeze(-1)
        top = _largest(values, ptr, row)
        out[some] = top.masked_fill_((ptr.diff() == 0).unsqueeze(1), 0)
        best = top if len(top) == 1 else top.index_select(0, row)
        hit = values if x.dtype.itemsize >= 4 else torch.empty_like(values, dtype=torch.float32)
        ties[some] = _row_totals(ptr, torch.eq(values, best, out=hit))
    return out, ties


def maxima_to_nodes(leaving: Walk, share: Tensor, out: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    """Gradient of (columns, D): every edge that reaches a maximum passes on its share."""
    dx = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return dx
    for some, edges, ptr, row in _runs(leaving.ptr, leaving.other.shape[0], x.shape[1]):
        found, given = (one.index_select(0, leaving.other[edges]) for one in (out, share))
        sent = x[some].index_select(0, row)
        if weight is not None:
            assert leaving.order is not None
            factor = weight.index_select(0, leaving.order[edges]).unsqueeze(-1)
            given *= factor
            sent *= factor
        dx[some] = _row_totals(ptr, given.mul_(torch.eq(found, sent, out=found)))
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
