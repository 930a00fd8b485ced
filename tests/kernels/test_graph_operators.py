"""Graph operators against their edge-by-edge form in float64: empty rows, double edges, bipartite graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget
from torch import Tensor

from graphrec.kernels import CSR, attention, edge_attention, edge_softmax, sddmm, segment_reduce, spmm
from graphrec.kernels.graph import torch as plain
from graphrec.kernels.patterns import Tokens


def draw_graph(rows: int, columns: int, edges: int) -> CSR:
    return CSR.from_edges(
        torch.randint(0, columns, (edges,)), torch.randint(0, rows, (edges,)), rows, columns
    )[0]


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 120), st.integers(0, 99))


@settings(max_examples=25)
@given(SIZES, st.sampled_from(["sum", "mean", "max"]), st.booleans())
def test_spmm_and_segments(size: tuple[int, int, int, int], reduce: str, weighted: bool) -> None:
    rows, columns, edges, seed = size
    torch.manual_seed(seed)
    graph = draw_graph(rows, columns, edges)

    def product(backend: str) -> Callable[..., tuple[Tensor]]:
        def run(x: Tensor, weight: Tensor) -> tuple[Tensor]:
            return (spmm(graph, x, weight if weighted else None, reduce=reduce, backend=backend),)  # type: ignore[arg-type]

        return run

    given_ = [torch.randn(columns, 6), torch.randn(edges)]
    assert_within_budget(product("torch"), product("reference"), given_)

    def segments(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda x: (segment_reduce(x, graph.ptr, reduce, backend=backend),)  # type: ignore[arg-type]

    assert_within_budget(segments("torch"), segments("reference"), [torch.randn(edges, 2, 3)])


@settings(max_examples=15)
@given(SIZES, st.booleans())
def test_spmm_with_own_rows(size: tuple[int, int, int, int], weighted: bool) -> None:
    """As loops of a weight at all nodes, whose gradient is that of the loops together."""
    nodes, _, edges, seed = size
    torch.manual_seed(seed)
    graph = draw_graph(nodes, nodes, edges)

    own, pull = torch.randn(1, requires_grad=True), torch.randn(nodes, 6)

    def product(backend: str) -> Callable[..., tuple[Tensor]]:
        def run(x: Tensor, weight: Tensor, own: Tensor = own) -> tuple[Tensor]:
            return (spmm(graph, x, weight if weighted else None, own=own.to(x.dtype), backend=backend),)

        return run

    given_ = [torch.randn(nodes, 6), torch.randn(edges)]
    assert_within_budget(product("torch"), product("reference"), given_)
    (slope,) = torch.autograd.grad((product("torch")(*given_)[0] * pull).sum(), own)
    terms = pull.double() * given_[0].double()  # their sum may be near zero, where its own size says nothing
    assert float((slope - terms.sum()).abs()) <= 8 * torch.finfo(torch.float32).eps * float(terms.abs().sum())
    looped, order = CSR.from_edges(
        torch.cat([graph.index, torch.arange(nodes)]),
        torch.cat([graph.row, torch.arange(nodes)]),
        nodes,
        nodes,
    )
    weight = torch.cat([given_[1] if weighted else torch.ones(edges), own.detach().expand(nodes)])[order]
    torch.testing.assert_close(product("torch")(*given_)[0], spmm(looped, given_[0], weight))


def test_own_rows_are_refused() -> None:
    graph, x, own = draw_graph(3, 4, 6), torch.randn(4, 2), torch.ones(1)
    with pytest.raises(ValueError, match="3 rows, 4 columns"):
        spmm(graph, x, own=own)
    square, x = draw_graph(3, 3, 6), torch.randn(3, 2)
    with pytest.raises(ValueError, match="reduce='mean' makes none"):
        spmm(square, x, own=own, reduce="mean")
    with pytest.raises(ValueError, match="own must be"):
        spmm(square, x, own=torch.ones(2))


def test_trusted_graph() -> None:
    graph = draw_graph(5, 4, 12)
    for row in (None, graph.row):
        same = CSR.trusted(graph.ptr, graph.index, graph.columns, row)
        assert (same.rows, same.columns, same.edges) == (5, 4, 12)
        for name in ("row", "degree"):
            assert torch.equal(getattr(same, name), getattr(graph, name))
        assert torch.equal(same.transpose[0].index, graph.transpose[0].index)


@settings(max_examples=25)
@given(SIZES, st.sampled_from([None, 1, 3]))
def test_products_and_softmax(size: tuple[int, int, int, int], heads: int | None) -> None:
    rows, columns, edges, seed = size
    torch.manual_seed(seed)
    graph = draw_graph(rows, columns, edges)
    lead = () if heads is None else (heads,)
    pair = [torch.randn(rows, *lead, 5), torch.randn(columns, *lead, 5)]
    assert_within_budget(
        lambda a, b: (sddmm(graph, a, b),), lambda a, b: (sddmm(graph, a, b, backend="reference"),), pair
    )
    assert_within_budget(
        lambda x: (edge_softmax(graph, x),),
        lambda x: (edge_softmax(graph, x, backend="reference"),),
        [torch.randn(edges, *lead)],
    )


@pytest.mark.parametrize("width", [1, 5, 16, 21])
def test_large_graphs_go_in_pieces(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of rows, one of them longer than a piece, and sparse products of widths that fill no vector."""
    monkeypatch.setattr(plain, "_CHUNK", 8 * width)
    monkeypatch.setattr(plain, "_CALL", 0)
    target = torch.cat([torch.randint(0, 12, (40,)), torch.full((30,), 5)])
    graph = CSR.from_edges(torch.randint(0, 9, (70,)), target, 14, 9)[0]

    def run(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def all_three(a: Tensor, b: Tensor, weight: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
            found = spmm(graph, b, weight, reduce="max", backend=backend)  # type: ignore[arg-type]
            softmax = edge_softmax(graph, scores, backend=backend)
            return found, sddmm(graph, a, b, backend=backend), softmax

        return all_three

    given_ = [torch.randn(14, width), torch.randn(9, width), torch.randn(70), torch.randn(70, width)]
    assert_within_budget(run("torch"), run("reference"), given_)


def test_many_ties_are_counted_in_sixteen_bits() -> None:
    """bfloat16 holds whole numbers up to 256 only."""
    x = torch.zeros(1000, 3, dtype=torch.bfloat16, requires_grad=True)
    segment_reduce(x, torch.tensor([0, 1000]), "max").sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 1e-3), rtol=1e-2, atol=0)


def test_rows_that_hide_all_edges() -> None:
    """A softmax over -inf alone is no number, in its own row only, for few heads and many."""
    graph = CSR(torch.tensor([0, 2, 2, 4]), torch.tensor([0, 1, 0, 1]), 2)
    for heads in (2, 32):
        scores = torch.zeros(4, heads)
        scores[:2] = -torch.inf
        found = edge_softmax(graph, scores)
        assert found[:2].isnan().all()
        torch.testing.assert_close(found[2:], torch.full((2, heads), 0.5))


@settings(max_examples=15)
@given(SIZES.filter(lambda size: size[2] == 0 or size[2] >= 60))
def test_edge_attention(size: tuple[int, int, int, int]) -> None:
    """Few edges are left out: rounding of a handful of numbers is a matter of luck."""
    rows, columns, edges, seed = size
    torch.manual_seed(seed)
    graph = draw_graph(rows, columns, edges)
    given_ = [
        torch.randn(rows, 4, 20),
        torch.randn(columns, 4, 20),
        torch.randn(columns, 4, 10),
        torch.randn(edges, 4),
    ]
    assert_within_budget(
        lambda q, k, v, bias: (edge_attention(graph, q, k, v, bias=bias),),
        lambda q, k, v, bias: (edge_attention(graph, q, k, v, bias=bias, backend="reference"),),
        given_,
    )


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    graph = draw_graph(4, 5, 9)
    x, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    leaves = (x.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, w: spmm(graph, x, w), leaves)
    assert torch.autograd.gradgradcheck(lambda x, w: spmm(graph, x, w), leaves)
    scores = torch.randn(9, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: edge_softmax(graph, s), scores)


def test_edge_attention_is_attention_to_listed_keys() -> None:
    torch.manual_seed(0)
    lists = torch.stack([torch.randperm(7)[:3] for _ in range(6)])
    graph = CSR(torch.arange(0, 19, 3), lists.flatten(), 7)
    q, k, v = torch.randn(6, 2, 4), torch.randn(7, 2, 4), torch.randn(7, 2, 5)
    found = edge_attention(graph, q, k, v)
    want = attention(*(one.transpose(0, 1).unsqueeze(0) for one in (q, k, v)), Tokens(lists))
    torch.testing.assert_close(found, want.squeeze(0).transpose(0, 1))


def test_order_of_nodes_does_not_matter() -> None:
    torch.manual_seed(0)
    source, target, x = torch.randint(0, 9, (30,)), torch.randint(0, 9, (30,)), torch.randn(9, 3)
    moved = torch.randperm(9)
    graph = CSR.from_edges(source, target, 9, 9)[0]
    other = CSR.from_edges(moved[source], moved[target], 9, 9)[0]
    again = torch.empty_like(x)
    again[moved] = x
    torch.testing.assert_close(spmm(other, again)[moved], spmm(graph, x))


def test_transpose_twice_is_the_graph() -> None:
    torch.manual_seed(0)
    graph = draw_graph(6, 4, 15)
    back, order = graph.transpose
    dense = torch.zeros(6, 4).index_put_((graph.row, graph.index), torch.ones(15), accumulate=True)
    turned = torch.zeros(4, 6).index_put_((back.row, back.index), torch.ones(15), accumulate=True)
    assert torch.equal(dense.T, turned)
    assert torch.equal(graph.row[order], back.index)
    assert torch.equal(graph.index[order], back.row)
    assert graph.transpose is graph.transpose


GRAPH = CSR(torch.tensor([0, 2, 3]), torch.tensor([0, 3, 1]), 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: CSR(torch.tensor([0, 2]), torch.tensor([0, 4]), 4), "index holds 0 to 4, must be 0 to 3"),
        (lambda: CSR(torch.tensor([0, 3]), torch.tensor([0, 1]), 4), "ptr must run from 0 to 2"),
        (lambda: CSR(torch.tensor([0, 2, 1, 2]), torch.tensor([0, 1]), 4), "must not decrease"),
        (lambda: CSR(torch.tensor([0.0]), torch.tensor([0]), 4), "ptr must be a vector of integers"),
        (lambda: CSR.from_edges(torch.tensor([0]), torch.tensor([5]), 5, 5), "target holds 5 to 5"),
        (lambda: CSR.from_edges(torch.tensor([0]), torch.tensor([1, 2]), 5, 5), "one length"),
        (lambda: CSR.from_edges(torch.tensor([0.5]), torch.tensor([1]), 5, 5), "source must be integers"),
        (lambda: CSR.from_edges(torch.tensor([0]), torch.tensor([True]), 5, 5), "target must be integers"),
        (
            lambda: CSR.from_edges(torch.tensor([0]), torch.tensor([0]), -1, 5),
            "rows=-1 and columns=5",
        ),
        (lambda: spmm(GRAPH, torch.zeros(3, 2)), r"x must be floating point of shape \(4, any\).*\(3, 2\)"),
        (lambda: spmm(GRAPH, torch.zeros(4, 2), torch.zeros(2)), r"weight must be .*\(3\)"),
        (lambda: spmm(GRAPH, torch.zeros(4, 2), reduce="min"), "reduce='min'"),  # type: ignore[arg-type]
        (lambda: spmm(GRAPH, torch.zeros(4, 2), backend="triton"), "backend='triton' cannot run spmm"),
        (lambda: sddmm(GRAPH, torch.zeros(2, 3), torch.zeros(4, 2)), r"b must be .*\(4, 3\)"),
        (lambda: sddmm(GRAPH, torch.zeros(2), torch.zeros(4, 2)), r"a of shape \(2,\)"),
        (lambda: edge_softmax(GRAPH, torch.zeros(4)), r"scores must be .*\(3\)"),
        (lambda: edge_attention(GRAPH, *[torch.zeros(4, 2, 3)] * 3), r"q must be .*\(2, any, any\)"),
        (lambda: segment_reduce(torch.zeros(3, 2), torch.tensor([0, 2])), "end in 3"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
