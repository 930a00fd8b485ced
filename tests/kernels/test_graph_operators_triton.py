"""The Triton kernels over the edges of a graph, on a GPU or interpreted, against the float64 formula.

Fresh memory is NaN. The interpreter takes some 10 ms per node, so graphs are small.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import CSR, edge_attention, edge_softmax, sddmm, segment_reduce, spmm
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def draw_graph(rows: int, columns: int, edges: int, kind: torch.dtype = torch.int64) -> CSR:
    """Edges drawn at random, some twice, with at least one row without any and one with many."""
    draw = torch.Generator().manual_seed(rows + columns + edges)
    source = torch.randint(0, columns, (edges,), generator=draw)
    target = torch.randint(1, rows, (edges,), generator=draw) if rows > 1 else torch.zeros(edges).long()
    target[: edges // 2] = rows - 1
    return CSR.from_edges(source.to(kind), target.to(kind), rows, columns)[0].to(DEVICE)


def named(dtype: torch.dtype, backend: str = "triton") -> str:
    return "reference" if dtype == torch.float64 else backend


def compare(call: Callable[..., Tensor], *inputs: Tensor) -> None:
    """An operator on Triton against its reference in float64, in the budget of its reference in float32."""
    given = [one.to(DEVICE) for one in inputs]
    assert_within_budget(
        lambda *all_: (call(*all_, backend=named(all_[0].dtype)),),
        lambda *all_: (call(*all_, backend="reference"),),
        given,
    )


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("dim", [1, 6, 20, 130])
def test_spmm(reduce: Any, dim: int) -> None:
    torch.manual_seed(dim)
    graph = draw_graph(5, 6, 90, torch.int32 if dim == 20 else torch.int64)
    assert graph.index.dtype == (torch.int32 if dim == 20 else torch.int64)
    x, weight = torch.randn(6, dim), torch.randn(90)
    compare(lambda x, w, backend: spmm(graph, x, w, reduce=reduce, backend=backend), x, weight)
    compare(lambda x, backend: spmm(graph, x, reduce=reduce, backend=backend), x)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_segment_reduce(reduce: Any, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    ptr = torch.tensor([0, 0, 3, 40, 40], dtype=kind, device=DEVICE)
    compare(lambda x, backend: segment_reduce(x, ptr, reduce, backend=backend), torch.randn(40, 2, 3))


def test_ties_share_the_gradient() -> None:
    graph = CSR(torch.tensor([0, 3, 3]), torch.tensor([0, 1, 2]), 3).to(DEVICE)
    x = torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.5, 2.0]], device=DEVICE, requires_grad=True)
    out = spmm(graph, x, reduce="max", backend="triton")
    assert out.tolist() == [[1, 2], [0, 0]]
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.tolist() == [[0.5, 0.5], [0.5, 0], [0, 0.5]]


@pytest.mark.parametrize("dims", [(1, 1), (2, 6), (1, 130)])
def test_sddmm(dims: tuple[int, int]) -> None:
    torch.manual_seed(0)
    graph = draw_graph(5, 6, 70)
    lead = dims[:1] if dims[0] > 1 else ()
    a, b = torch.randn(5, *lead, dims[1]), torch.randn(6, *lead, dims[1])
    compare(lambda a, b, backend: sddmm(graph, a, b, backend=backend), a, b)


@pytest.mark.parametrize("heads", [None, 1, 3])
def test_edge_softmax(heads: int | None) -> None:
    torch.manual_seed(0)
    graph = draw_graph(5, 6, 150)
    scores = torch.randn(150, *(() if heads is None else (heads,))) * 5
    compare(lambda scores, backend: edge_softmax(graph, scores, backend=backend), scores)
    total = spmm(
        graph, torch.ones(6, 1, device=DEVICE), edge_softmax(graph, scores.to(DEVICE).view(150, -1)[:, 0])
    )
    assert torch.allclose(total.squeeze(1)[graph.degree > 0], torch.tensor(1.0, device=DEVICE))


@pytest.mark.parametrize("dims", [(1, 1), (6, 10), (20, 53), (77, 16), (128, 300)])
@pytest.mark.parametrize("biased", [True, False])
def test_edge_attention(dims: tuple[int, int], biased: bool) -> None:
    torch.manual_seed(0)
    graph = draw_graph(5, 4, 60)
    inputs = [torch.randn(5, 2, dims[0]), torch.randn(4, 2, dims[0]), torch.randn(4, 2, dims[1])]
    inputs += [torch.randn(60, 2)] if biased else []

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, backend: str) -> Tensor:
        return edge_attention(graph, q, k, v, bias=bias, backend=backend)

    compare(call, *inputs)


@pytest.mark.parametrize("edges", [0, 1])
def test_graphs_of_nothing(edges: int) -> None:
    torch.manual_seed(0)
    graph = draw_graph(2, 3, edges)
    q, k = torch.randn(2, 1, 4), torch.randn(3, 1, 4)
    compare(lambda q, k, v, backend: edge_attention(graph, q, k, v, backend=backend), q, k, k)
    compare(lambda x, backend: spmm(graph, x, backend=backend), k[:, 0])
    compare(lambda x, backend: spmm(graph, x, reduce="max", backend=backend), k[:, 0])
    compare(lambda a, b, backend: sddmm(graph, a, b, backend=backend), q, k)
    compare(lambda x, backend: edge_softmax(graph, x, backend=backend), torch.randn(edges, 2))


def test_strides_need_no_copy() -> None:
    torch.manual_seed(0)
    graph = draw_graph(4, 5, 30)
    q = torch.randn(3, 2, 4, device=DEVICE).permute(2, 1, 0)
    k = torch.randn(2, 5, 3, device=DEVICE).transpose(0, 1)
    v = torch.randn(5, 2, 12, device=DEVICE)[..., ::2]
    bias = torch.randn(2, 30, device=DEVICE).T
    found = edge_attention(graph, q, k, v, bias=bias, backend="triton")
    torch.testing.assert_close(found, edge_attention(graph, q, k, v, bias=bias, backend="reference"))
    x = torch.randn(6, 5, device=DEVICE).T[:, ::2]
    torch.testing.assert_close(spmm(graph, x, bias[:, 0], backend="triton"), spmm(graph, x, bias[:, 0]))
    torch.testing.assert_close(
        spmm(graph, x, bias[:, 0], reduce="max", backend="triton"), spmm(graph, x, bias[:, 0], reduce="max")
    )
    torch.testing.assert_close(sddmm(graph, q, k, backend="triton"), sddmm(graph, q, k))
    torch.testing.assert_close(edge_softmax(graph, bias, backend="triton"), edge_softmax(graph, bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    torch.manual_seed(0)
    graph = draw_graph(5, 6, 60)
    x = torch.randn(6, 2, 16, device=DEVICE).to(dtype)
    q = torch.randn(5, 2, 16, device=DEVICE).to(dtype)
    weight = torch.randn(60, device=DEVICE).to(dtype)
    calls: list[tuple[Callable[..., Tensor], list[Tensor]]] = [
        (lambda q, x, backend: edge_attention(graph, q, x, x, backend=backend), [q, x]),
        (lambda x, w, backend: spmm(graph, x[:, 0], w, backend=backend), [x, weight]),
        (lambda x, w, backend: spmm(graph, x[:, 0], w, reduce="max", backend=backend), [x, weight]),
    ]
    for call, inputs in calls:
        leaves = [one.clone().requires_grad_() for one in inputs]
        exact = [one.detach().double().requires_grad_() for one in leaves]
        out, want = call(*leaves, backend="triton"), call(*exact, backend="reference")
        weights = torch.randn(want.shape, device=DEVICE, dtype=torch.float64)
        found = [out, *torch.autograd.grad(out, leaves, weights.to(dtype))]
        truth = [want, *torch.autograd.grad(want, exact, weights)]
        for one, other in zip(found, truth, strict=True):
            assert distance(one, other) < 6 * torch.finfo(dtype).eps


def test_operators_are_registered() -> None:
    """opcheck: schema, fake tensors, autograd and tracing of each operator."""
    from graphrec.kernels.graph import registered
    from graphrec.kernels.graph.triton import fused_attention

    graph = draw_graph(3, 4, 9)
    tensors = graph.tensors(True)
    x = torch.randn(4, 2, 3, device=DEVICE, requires_grad=True)
    q = torch.randn(3, 2, 3, device=DEVICE, requires_grad=True)
    scores = torch.randn(9, 2, device=DEVICE, requires_grad=True)
    torch.library.opcheck(registered.sums.registered, (x, scores, tensors, False, 3, "triton"))
    square, own = draw_graph(4, 4, 9), torch.ones(1, device=DEVICE, requires_grad=True)
    torch.library.opcheck(
        registered.own_sums.registered, (x, scores, own, square.tensors(True), False, "triton")
    )
    torch.library.opcheck(registered.products.registered, (q, x, tensors, "triton"))
    torch.library.opcheck(registered.softmax.registered, (scores, tensors, "triton"))
    torch.library.opcheck(fused_attention.registered, (q, x, x, scores, tensors, 0.5))
    flat = torch.randn(4, 3, device=DEVICE, requires_grad=True)
    torch.library.opcheck(registered.maxima.registered, (flat, scores[:, 0], tensors, "triton"))


def test_compiles_into_one_graph() -> None:
    graph = draw_graph(4, 5, 12)
    k, q = (torch.randn(size, 2, 3, device=DEVICE, requires_grad=True) for size in (5, 4))

    def run(q: Tensor, k: Tensor) -> Tensor:
        weight = edge_softmax(graph, sddmm(graph, q, k, backend="triton"), backend="triton")[:, 0]
        return (
            edge_attention(graph, q, k, k, backend="triton").sin().sum()
            + spmm(graph, k[:, 0], weight, reduce="max", backend="triton").sum()
        )

    for made in (False, True):  # without and with a transpose from before
        if made:
            assert graph.transpose[0].rows == 5
        torch._dynamo.reset()
        found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(q, k), run(q, k)
        torch.testing.assert_close(found, want)
        for one, other in zip(*(torch.autograd.grad(out, (q, k)) for out in (found, want)), strict=True):
            torch.testing.assert_close(one, other)
        graph = draw_graph(4, 5, 12)
