"""The graph operators as torch sees them: dtypes, second derivatives, tracing, autocast, checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget, distance
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import CSR, edge_attention, edge_softmax, explain, sddmm, segment_reduce, spmm
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.graph import registered


def draw_graph(rows: int, columns: int, edges: int, kind: torch.dtype = torch.int64) -> CSR:
    """Edges drawn at random, some of them twice, half of them at the last row."""
    source, target = torch.randint(0, columns, (edges,)), torch.randint(0, rows, (edges,))
    target[: edges // 2] = rows - 1
    return CSR.from_edges(source.to(kind), target, rows, columns)[0]


SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(0, 200), st.integers(0, 99))


@settings(max_examples=25)
@given(SIZES, st.sampled_from([1, 6, 53]), st.booleans())
def test_maxima(size: tuple[int, int, int, int], dim: int, tied: bool) -> None:
    """Hubs fill their buckets up and values that are equal share the gradient."""
    rows, columns, edges, seed = size
    torch.manual_seed(seed)
    graph = draw_graph(rows, columns, edges)
    x, weight = torch.randn(columns, dim), torch.randn(edges)
    if tied:
        x, weight = x.round(), weight.round().clamp(-1, 1)

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda x, w: (spmm(graph, x, w, reduce="max", backend=backend),)

    assert_within_budget(run("torch"), run("reference"), [x, weight])

    def plain(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda x: (spmm(graph, x.relu(), reduce="max", backend=backend),)

    assert_within_budget(plain("torch"), plain("reference"), [x])


def test_int32_stays() -> None:
    torch.manual_seed(0)
    wide = draw_graph(7, 9, 40)
    graph = CSR(wide.ptr.int(), wide.index.int(), 9)
    back, order = graph.transpose
    for one in (graph.ptr, graph.index, graph.row, graph.degree, back.ptr, back.index, order):
        assert one.dtype == torch.int32
    assert CSR(wide.ptr.int(), wide.index, 9).ptr.dtype == torch.int64
    q, k, weight = torch.randn(7, 2, 3), torch.randn(9, 2, 3, requires_grad=True), torch.randn(40)
    calls: list[Callable[[CSR], Tensor]] = [
        lambda g: spmm(g, k[:, 0], weight),
        lambda g: spmm(g, k[:, 0], weight, reduce="max"),
        lambda g: sddmm(g, q, k),
        lambda g: edge_softmax(g, sddmm(g, q, k)),
        lambda g: edge_attention(g, q, k, k),
        lambda g: edge_attention(g, q, k, k, backend="reference"),
        lambda g: segment_reduce(k[g.index.long()], g.ptr, "mean"),
    ]
    for call in calls:
        small, large = call(graph), call(wide)
        torch.testing.assert_close(small, large)
        grads = [torch.autograd.grad(one.sin().sum(), k)[0] for one in (small, large)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    graph = draw_graph(12, 9, 150)
    x, q = torch.randn(9, 2, 6), torch.randn(12, 2, 6)

    def run(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def call(q: Tensor, x: Tensor) -> tuple[Tensor, ...]:
            weight = edge_softmax(graph, sddmm(graph, q, x, backend=backend), backend=backend)
            total = spmm(graph, x[:, 0], weight[:, 0], backend=backend)
            return total, edge_attention(graph, q, x, x, backend=backend)

        return call

    assert_within_budget(run("torch"), run("reference"), [q, x], dtype)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    graph = draw_graph(3, 4, 7)
    a, b = (torch.randn(size, 2, 2, dtype=torch.float64, requires_grad=True) for size in (3, 4))
    assert torch.autograd.gradcheck(lambda a, b: sddmm(graph, a, b), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: sddmm(graph, a, b), (a, b))
    scores = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda s: edge_softmax(graph, s), scores)
    assert torch.autograd.gradcheck(lambda a, b: edge_attention(graph, a, b, b), (a, b))
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: spmm(graph, x, w, reduce="max"), (x, weight))


def test_operators_are_registered() -> None:
    """opcheck: schema, fake tensors, autograd and tracing, with and without a transpose at hand."""
    torch.manual_seed(0)
    graph = draw_graph(3, 4, 9)
    x, q = (torch.randn(size, 2, 3, requires_grad=True) for size in (4, 3))
    scores, grad = (torch.randn(9, 2, requires_grad=True) for _ in range(2))
    alone, both = graph.tensors(False), graph.tensors(True)
    assert (len(alone), len(both)) == (3, 6)
    torch.library.opcheck(registered.sums.registered, (x, scores, alone, False, 3, "torch"))
    torch.library.opcheck(registered.sums.registered, (q, scores, both, True, 4, "torch"))
    flat, weight = (one.detach()[:, 0].clone().requires_grad_() for one in (x, scores))
    torch.library.opcheck(registered.sums.registered, (flat, weight, alone, False, 3, "torch"))
    torch.library.opcheck(registered.products.registered, (q, x, both, "torch"))
    torch.library.opcheck(registered.softmax.registered, (scores, both, "torch"))
    torch.library.opcheck(registered.softmax_backward.registered, (scores, grad, both, "torch"))
    torch.library.opcheck(
        registered.maxima.registered, (x[:, 0].detach().requires_grad_(), None, alone, "torch")
    )


class Layer(torch.nn.Module):
    """Attention over edges, maxima of neighbours and a mean, on a graph that the layer keeps."""

    def __init__(self, graph: CSR) -> None:
        super().__init__()
        self.graph = graph
        self.project = torch.nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(1, (3, 2, 3)).unbind(1)
        out = edge_attention(self.graph, q, k, v).flatten(1)
        return spmm(self.graph, out, reduce="max") + spmm(self.graph, out, reduce="mean")


@pytest.mark.parametrize("made", [False, True])
def test_compiles_exports_and_checkpoints(made: bool) -> None:
    """Into one graph, whether or not the transpose was made before."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = Layer(draw_graph(8, 8, 40))
    same = Layer(CSR(layer.graph.ptr, layer.graph.index, 8))
    same.load_state_dict(layer.state_dict())
    x = torch.randn(8, 6, requires_grad=True)
    want = same(x)
    (truth,) = torch.autograd.grad(want.sum(), x, retain_graph=True)
    if made:
        assert layer.graph.transpose[0].rows == 8
    for found in (
        torch.compile(layer, fullgraph=True, backend="aot_eager")(x),
        checkpoint(layer, x, use_reentrant=False),
    ):
        torch.testing.assert_close(found, want)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], truth)
    exported = torch.export.export(layer, (x.detach(),))
    torch.testing.assert_close(exported.module()(x.detach()), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert distance(low, want) < 0.03


def test_dtypes_are_promoted_as_in_a_product() -> None:
    graph = draw_graph(3, 4, 9)
    x, weight = torch.randn(4, 2).bfloat16(), torch.randn(9)
    for reduce in ("sum", "mean", "max"):
        assert spmm(graph, x, weight, reduce=reduce).dtype == torch.float32  # type: ignore[arg-type]
        assert spmm(graph, x, reduce=reduce).dtype == torch.bfloat16  # type: ignore[arg-type]
    assert sddmm(graph, torch.randn(3, 2), x).dtype == torch.float32


def test_devices_must_agree() -> None:
    graph = draw_graph(3, 4, 9)
    with pytest.raises(ValueError, match="x is on meta, the graph on cpu"):
        spmm(graph, torch.randn(4, 2, device="meta"))
    with pytest.raises(ValueError, match="ptr is on meta, index on cpu"):
        CSR(graph.ptr.to("meta"), graph.index, 4)


def test_explain_tells_why_not_triton() -> None:
    told = explain(edge_softmax, draw_graph(3, 4, 9), torch.randn(9))
    assert told.backend == "torch"
    assert told.refused["triton"] == triton_missing() or "TRITON_INTERPRET" in told.refused["triton"]


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_maximum_of_zero_has_a_whole_gradient(backend: str) -> None:
    graph = CSR(torch.tensor([0, 2, 4]), torch.tensor([0, 1, 1, 2]), 3)
    x = torch.tensor([[0.0], [-1.0], [-1.0]], requires_grad=True)
    out = spmm(graph, x, reduce="max", backend=backend)
    assert out.tolist() == [[0], [-1]]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [[1], [0.5], [0.5]]


@pytest.mark.parametrize("own", [False, True])
def test_a_sum_without_weights_keeps_no_rows(own: bool) -> None:
    """Its gradient is a sum of gradients: what it was made of may go."""
    torch.manual_seed(0)
    graph = draw_graph(5, 5, 9)
    x = torch.randn(5, 4, requires_grad=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        found = spmm(graph, x, own=torch.ones(1) if own else None)
    found.sum().backward()
    assert kept
    assert not any(one.is_floating_point() and one.numel() > 1 for one in kept)


def test_numbers_of_a_ptr_that_numpy_changes_are_read_again() -> None:
    ends = np.array([0, 3, 10])
    ptr, x = torch.from_numpy(ends), torch.arange(10.0)
    assert segment_reduce(x, ptr, "mean").tolist() == [1, 6]
    ends[1] = 1
    assert segment_reduce(x, ptr, "mean").tolist() == [0, 5]
    ends[1] = 11
    with pytest.raises(ValueError, match="must run from 0, never decrease"):
        segment_reduce(x, ptr)


def test_exports_for_any_number_of_runs() -> None:
    class Means(torch.nn.Module):
        def forward(self, x: Tensor, ptr: Tensor) -> Tensor:
            return segment_reduce(x, ptr, "mean")

    shapes = ({0: torch.export.Dim.DYNAMIC}, {0: torch.export.Dim.DYNAMIC})
    given = torch.randn(10, 3), torch.tensor([0, 3, 3, 10])
    exported = torch.export.export(Means(), given, dynamic_shapes=shapes, strict=False).module()
    x, ptr = torch.randn(11, 3), torch.tensor([0, 3, 5, 9, 11])
    torch.testing.assert_close(exported(x, ptr), segment_reduce(x, ptr, "mean"))


def test_forward_mode_is_refused_and_not_zero() -> None:
    graph, x = draw_graph(3, 4, 9), torch.randn(4, 2)
    with pytest.raises(NotImplementedError, match=r"graph_sums has no derivative in forward mode"):
        torch.func.jvp(lambda x: spmm(graph, x), (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        assert spmm(graph, x).shape == (3, 2)  # nothing to carry on
        with pytest.raises(NotImplementedError, match="forward mode"):
            spmm(graph, torch.autograd.forward_ad.make_dual(x, x))
