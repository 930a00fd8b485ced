"""The public graph operators: checks and choice of backend."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

from torch import Tensor

from ..backends import choose
from . import reference
from . import torch as plain
from .csr import CSR

Reduce = Literal["sum", "mean", "max"]


def _module(operator: str, backend: str | None) -> ModuleType:
    return (
        reference
        if choose(operator, backend, {"reference": None, "torch": None}).backend == "reference"
        else plain
    )


def _check(x: Tensor, name: str, sizes: tuple[int | None, ...]) -> None:
    """Raise ValueError unless ``x`` is floating point of this shape; None stands for any size."""
    fits = x.dim() == len(sizes) and all(
        want in (None, one) for one, want in zip(x.shape, sizes, strict=True)
    )
    if not fits or not x.is_floating_point():
        want = ", ".join("any" if one is None else str(one) for one in sizes)
        raise ValueError(
            f"{name} must be floating point of shape ({want}), got {x.dtype} of {tuple(x.shape)}"
        )


def _check_reduce(reduce: str) -> None:
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f"reduce={reduce!r} must be 'sum', 'mean' or 'max'")


def segment_reduce(x: Tensor, ptr: Tensor, reduce: Reduce = "sum", *, backend: str | None = None) -> Tensor:
    """Reduce runs of rows.

    Args:
        x: (E, ...).
        ptr: int64 (rows + 1,): run ``i`` is ``x[ptr[i] : ptr[i + 1]]``; an empty run gives 0.
        reduce: "sum", "mean" or "max". Where several rows are the maximum, they share its gradient.
        backend: "reference", "torch" or None to choose.

    Returns:
        (rows, ...).

    Raises:
        ValueError: ``ptr`` does not cover ``x``, or ``reduce`` or ``backend`` does not exist.
    """
    _check_reduce(reduce)
    if ptr.dim() != 1 or len(ptr) < 1 or int(ptr[-1]) != len(x):
        raise ValueError(f"ptr of shape {tuple(ptr.shape)} must end in {len(x)}, the rows of x")
    found: Tensor = _module("segment_reduce", backend).segment_reduce(x, ptr, reduce)
    return found


def spmm(
    graph: CSR, x: Tensor, weight: Tensor | None = None, *, reduce: Reduce = "sum", backend: str | None = None
) -> Tensor:
    """Every node gathers from its neighbours: ``out[i] = reduce(weight[e] * x[index[e]])`` over its edges.

    Args:
        graph: who sends to whom.
        x: (columns, D).
        weight: (E,), one factor per edge in the graph's order; None is 1.
        reduce: "sum", "mean" (over the number of edges) or "max". A node without edges gets 0.
        backend: "reference", "torch" or None to choose.

    Returns:
        (rows, D).

    Raises:
        ValueError: shapes that do not fit the graph, or a ``reduce`` or ``backend`` that does not exist.
    """
    _check_reduce(reduce)
    _check(x, "x", (graph.columns, None))
    if weight is not None:
        _check(weight, "weight", (graph.edges,))
    found: Tensor = _module("spmm", backend).spmm(graph, x, weight, reduce)
    return found


def sddmm(graph: CSR, a: Tensor, b: Tensor, *, backend: str | None = None) -> Tensor:
    """A product per edge: ``a[row[e]] . b[index[e]]``.

    Args:
        graph: who sends to whom.
        a: (rows, D) or (rows, H, D).
        b: (columns, D) or (columns, H, D).
        backend: "reference", "torch" or None to choose.

    Returns:
        (E,) or (E, H).

    Raises:
        ValueError: shapes that do not fit the graph or each other, or an unknown backend.
    """
    if a.dim() not in (2, 3):
        raise ValueError(f"a of shape {tuple(a.shape)} must be (rows, D) or (rows, H, D)")
    _check(a, "a", (graph.rows, *a.shape[1:]))
    _check(b, "b", (graph.columns, *a.shape[1:]))
    found: Tensor = _module("sddmm", backend).sddmm(graph, a, b)
    return found


def edge_softmax(graph: CSR, scores: Tensor, *, backend: str | None = None) -> Tensor:
    """Softmax over the edges that reach the same node (GAT, arXiv:1710.10903, eq. 2).

    Args:
        graph: who sends to whom.
        scores: (E,) or (E, H) in the graph's order.
        backend: "reference", "torch" or None to choose.

    Returns:
        Like ``scores``; sums to 1 per node that has edges.

    Raises:
        ValueError: scores that are not one row per edge, or an unknown backend.
    """
    _check(scores, "scores", (graph.edges, *scores.shape[1:2]))
    found: Tensor = _module("edge_softmax", backend).edge_softmax(graph, scores)
    return found


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
        backend: "reference", "torch" or None to choose.

    Returns:
        (rows, H, Dv); 0 for a node without edges.

    Raises:
        ValueError: shapes that do not fit the graph or each other, or an unknown backend.
    """
    _check(q, "q", (graph.rows, None, None))
    _check(k, "k", (graph.columns, *q.shape[1:]))
    _check(v, "v", (graph.columns, q.shape[1], None))
    if bias is not None:
        _check(bias, "bias", (graph.edges, q.shape[1]))
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    found: Tensor = _module("edge_attention", backend).edge_attention(graph, q, k, v, bias, scale)
    return found
