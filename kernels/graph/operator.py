"""The public graph operators: checks and choice of backend."""

from __future__ import annotations

from functools import reduce as reduce_pairs
from math import prod
from typing import Literal

import torch
from torch import Tensor

from ..backends import Backend, choose, plainly, triton_refusal
from ..checking import recalled, remember, unreadable
from ..remembered import kept
from . import reference, registered
from .csr import CSR, rows_of

Reduce = Literal["sum", "mean", "max"]


def _select(operator: str, backend: str | None, *tensors: Tensor) -> Backend:
    if plainly(backend, tensors[0]):
        return "torch"
    refused = triton_refusal(*tensors)
    return choose(operator, backend, {"reference": None, "torch": None, "triton": refused}).backend


def _together(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors in the widest of their dtypes, as their products would be."""
    if len({one.dtype for one in tensors if one is not None}) == 1:
        return tensors
    kind = reduce_pairs(torch.promote_types, (one.dtype for one in tensors if one is not None))
    return tuple(None if one is None else one.to(kind) for one in tensors)


def _wanted(*tensors: Tensor | None) -> bool:
    """Whether a backward may follow."""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


def _check(x: Tensor, name: str, sizes: tuple[int | None, ...], graph: CSR) -> None:
    """Raise ValueError unless ``x`` is floating point of this shape and on the graph's device.

    None stands for any size.
    """
    fits = x.dim() == len(sizes) and all(
        want in (None, one) for one, want in zip(x.shape, sizes, strict=True)
    )
    if not fits or not x.is_floating_point():
        want = ", ".join("any" if one is None else str(one) for one in sizes)
        raise ValueError(
            f"{name} must be floating point of shape ({want}), got {x.dtype} of {tuple(x.shape)}"
        )
    if x.device != graph.ptr.device:
        raise ValueError(f"{name} is on {x.device}, the graph on {graph.ptr.device}: they must agree")


def _check_own(own: Tensor, graph: CSR, reduce: str) -> None:
    _check(own, "own", (1,), graph)
    if reduce != "sum":
        raise ValueError(f"own is added to a sum, reduce={reduce!r} makes none")
    if graph.rows != graph.columns:
        raise ValueError(
            f"own needs the same nodes at both ends, got {graph.rows} rows, {graph.columns} columns"
        )


def _check_reduce(reduce: str) -> None:
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"reduce={reduce!r} must be 'sum', 'mean' or 'max'")


def segment_reduce(x: Tensor, ptr: Tensor, reduce: Reduce = "sum", *, backend: str | None = None) -> Tensor:
    """Reduce runs of rows.

    Args:
        x: (E, ...).
        ptr: int32 or int64 (rows + 1,): run ``i`` is ``x[ptr[i] : ptr[i + 1]]``; an empty run gives 0.
        reduce: "sum", "mean" or "max". Where several rows are the maximum, they share its gradient.
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        (rows, ...).

    Raises:
        ValueError: ``ptr`` does not cover ``x``, or ``reduce`` or ``backend`` does not exist.
    """
    _check_reduce(reduce)
    if x.dim() < 1 or not x.is_floating_point():
        raise ValueError(f"x must be floating point of shape (E, ...), got {x.dtype} of {tuple(x.shape)}")
    ptr, degree, row, one_each = _runs(ptr, x)
    name = _select("segment_reduce", backend, x)
    if name == "reference":
        return reference.segment_reduce(x, ptr, reduce)
    graph = [ptr, one_each[:-1], row, one_each, row, one_each[:-1]]
    flat = x if x.dim() == 2 else x.reshape(x.shape[0], prod(x.shape[1:]))
    found = _reduce(graph, flat, None, reduce, degree if reduce == "mean" else None, name)
    return found if x.dim() == 2 else found.view(ptr.shape[0] - 1, *x.shape[1:])


def _runs(ptr: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``ptr`` as int32 or int64, the length of every run, the run of every row, and 0 to the number of rows.

    Raises:
        ValueError: ``ptr`` does not cover ``x``.
    """
    if ptr.dim() != 1 or ptr.shape[0] < 1 or ptr.is_floating_point() or ptr.dtype == torch.bool:
        raise ValueError(f"ptr must be a vector of integers, got {ptr.dtype} of shape {tuple(ptr.shape)}")
    if ptr.device != x.device:
        raise ValueError(f"ptr is on {ptr.device}, x on {x.device}: they must agree")
    ptr = ptr if ptr.dtype == torch.int32 else ptr.long()
    rows = x.shape[0]
    if unreadable(ptr):
        return ptr, *_derived(ptr, rows)
    made = recalled(ptr, rows)
    if made is None:
        if int(ptr[0]) != 0 or int(ptr[-1]) != rows or bool((ptr.diff() < 0).any()):
            raise ValueError(
                f"ptr of shape {tuple(ptr.shape)} must run from 0, never decrease, and end in {rows},"
                " the rows of x"
            )
        made = _kept_runs(ptr, rows)
        remember(ptr, rows, *made)
    degree, row, one_each = made
    return ptr, degree, row, one_each


def _derived(ptr: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    degree = ptr.diff()
    return degree, rows_of(degree, rows), torch.arange(rows + 1, device=ptr.device, dtype=ptr.dtype)


_kept_runs = kept(_derived)


def _reduce(
    graph: list[Tensor], x: Tensor, weight: Tensor | None, reduce: str, degree: Tensor | None, backend: str
) -> Tensor:
    """Reduce (columns, D) over the edges of each row, (rows, D); a mean needs the degrees."""
    if reduce == "max":
        top: Tensor = registered.maxima(x, weight, graph, backend)[0]
        return top
    total: Tensor = registered.sums(x, weight, graph, False, graph[0].shape[0] - 1, backend)
    return total if degree is None else total / degree.clamp(min=1).unsqueeze(-1).to(x.dtype)


def spmm(
    graph: CSR,
    x: Tensor,
    weight: Tensor | None = None,
    *,
    own: Tensor | None = None,
    reduce: Reduce = "sum",
    backend: str | None = None,
) -> Tensor:
    """Every node gathers from its neighbours: ``out[i] = reduce(weight[e] * x[index[e]])`` over its edges.

    Args:
        graph: who sends to whom.
        x: (columns, D).
        weight: (E,), one factor per edge in the graph's order; None is 1.
        own: (1,), a factor on each node's own row, added to its sum, as a loop at every node of that weight
            would be; rows and columns are then the same nodes, and ``reduce`` is "sum".
        reduce: "sum", "mean" (over the number of edges) or "max". A node without edges gets 0.
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        (rows, D).

    Raises:
        ValueError: shapes that do not fit the graph, or a ``reduce`` or ``backend`` that does not exist.
    """
    _check_reduce(reduce)
    _check(x, "x", (graph.columns, None), graph)
    if weight is not None:
        _check(weight, "weight", (graph.edges,), graph)
    if own is not None:
        _check_own(own, graph, reduce)
    name = _select("spmm", backend, *(one for one in (x, weight, own) if one is not None))
    if name == "reference":
        found = reference.spmm(graph, x, weight, reduce)
        return found if own is None else found + own * x
    back = _wanted(x) or (reduce == "max" and _wanted(weight))
    wide, factor, share = _together(x, weight, own)
    assert wide is not None
    if share is None:
        degree = graph.degree if reduce == "mean" else None
        return _reduce(graph.tensors(back), wide, factor, reduce, degree, name)
    total: Tensor = registered.own_sums(wide, factor, share, graph.tensors(back), False, name)
    return total


def sddmm(graph: CSR, a: Tensor, b: Tensor, *, backend: str | None = None) -> Tensor:
    """A product per edge: ``a[row[e]] . b[index[e]]``.

    Args:
        graph: who sends to whom.
        a: (rows, D) or (rows, H, D).
        b: (columns, D) or (columns, H, D).
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        (E,) or (E, H).

    Raises:
        ValueError: shapes that do not fit the graph or each other, or an unknown backend.
    """
    if a.dim() not in (2, 3):
        raise ValueError(f"a of shape {tuple(a.shape)} must be (rows, D) or (rows, H, D)")
    _check(a, "a", (graph.rows, *a.shape[1:]), graph)
    _check(b, "b", (graph.columns, *a.shape[1:]), graph)
    name = _select("sddmm", backend, a, b)
    if name == "reference":
        return reference.sddmm(graph, a, b)
    left, right = _together(a, b)
    assert left is not None
    assert right is not None
    graph_tensors = graph.tensors(_wanted(b))
    if a.dim() == 2:
        flat = registered.products(left.unsqueeze(1), right.unsqueeze(1), graph_tensors, name)
        return flat.squeeze(1)
    found: Tensor = registered.products(left, right, graph_tensors, name)
    return found


def edge_softmax(graph: CSR, scores: Tensor, *, backend: str | None = None) -> Tensor:
    """Softmax over the edges that reach the same node (GAT, arXiv:1710.10903, eq. 2).

    Args:
        graph: who sends to whom.
        scores: (E,) or (E, H) in the graph's order.
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        Like ``scores``; sums to 1 per node that has edges.

    Raises:
        ValueError: scores that are not one row per edge, or an unknown backend.
    """
    _check(scores, "scores", (graph.edges, *scores.shape[1:2]), graph)
    name = _select("edge_softmax", backend, scores)
    if name == "reference":
        return reference.edge_softmax(graph, scores)
    flat = scores.unsqueeze(-1) if scores.dim() == 1 else scores
    found: Tensor = registered.softmax(flat, graph.tensors(False), name)
    return found.view(scores.shape)


def edge_attention(
    graph: CSR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Softmax attention of every node to its neighbours.

    Args:
        graph: who sends to whom.
        q: (rows, H, D).
        k: (columns, H, D).
        v: (columns, H, Dv).
        bias: (E, H), added to the logits of edges.
        scale: factor on the products; None is ``D ** -0.5``.
        backend: "reference", "torch", "triton", or None to choose.

    Returns:
        (rows, H, Dv); 0 for a node without edges.

    Raises:
        ValueError: shapes that do not fit the graph or each other, or an unknown backend.
    """
    _check(q, "q", (graph.rows, None, None), graph)
    _check(k, "k", (graph.columns, *q.shape[1:]), graph)
    _check(v, "v", (graph.columns, q.shape[1], None), graph)
    if bias is not None:
        _check(bias, "bias", (graph.edges, q.shape[1]), graph)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    name = _select("edge_attention", backend, q, k, v)
    if name == "reference":
        return reference.edge_attention(graph, q, k, v, bias, scale)
    q, k, v = (one for one in _together(q, k, v) if one is not None)
    tensors = graph.tensors(_wanted(k, v))
    if name == "triton":
        from .triton import edge_attention as fused

        return fused(tensors, q, k, v, bias, scale)
    scores = registered.products(q, k, tensors, name) * scale
    weights = registered.softmax(scores if bias is None else scores + bias, tensors, name)
    found: Tensor = registered.sums(v, weights.to(v.dtype), tensors, False, graph.rows, name)
    return found
