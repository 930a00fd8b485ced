"""Incidences and the HGNN family against dense matrices, PyG, and what symmetry asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypergraph_tools import dense, incidences, pairs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.nn import HypergraphConv

from graphrec.errors import ConfigError, DataError
from graphrec.graph.hypergraph import Incidence
from graphrec.graph.hypergraph.hgnn import (
    TEACHERS,
    HypergraphNetwork,
    SmoothingConv,
    smooth_hgnn,
    smooth_hgnnp,
    smooth_unigcn,
)
from graphrec.pipelines.hypergraphs import from_edge_lists

NAMES = st.sampled_from(sorted(TEACHERS))


def inverse(x: Tensor, power: float = 1.0) -> Tensor:
    """x ** -power, 0 where x is 0."""
    return torch.where(x > 0, x.clamp(min=1e-300) ** -power, 0)


def operator(name: str, incidence: Incidence) -> Tensor:
    """The (N, N) matrix that a layer applies, written as in the papers."""
    h, w = dense(incidence)
    d_e, d_v = h.sum(0), h @ w
    if name == "hgnn":
        root = inverse(d_v, 0.5).diag()
        return root @ h @ w.diag() @ inverse(d_e).diag() @ h.T @ root
    if name == "hgnnp":
        return inverse(d_v).diag() @ h @ w.diag() @ inverse(d_e).diag() @ h.T
    member = (h > 0).double()
    near = (member.T @ d_v) / member.sum(0).clamp(min=1)
    factor = torch.where(near > 0, inverse(near, 0.5), 1)
    return inverse(d_v, 0.5).diag() @ h @ factor.diag() @ w.diag() @ inverse(d_e).diag() @ h.T


def slow_layer(name: str, layer: nn.Module, x: Tensor, incidence: Incidence) -> Tensor:
    """A layer with dense matrices."""
    if name != "hnhn":
        return operator(name, incidence) @ layer.theta(x)  # type: ignore[operator]
    h, w = dense(incidence)
    edges = torch.relu(w.diag() @ inverse(h.sum(0)).diag() @ h.T @ layer.theta_v2e(x))  # type: ignore[operator]
    return inverse(h @ w).diag() @ h @ layer.theta_e2v(edges)  # type: ignore[operator]


def network(name: str, channels: tuple[int, int, int] = (5, 4, 3)) -> HypergraphNetwork:
    features, hidden, classes = channels
    return TEACHERS[name](features, classes, hidden=hidden).double().eval()


@pytest.mark.parametrize("name", sorted(TEACHERS))
@settings(max_examples=25)
@given(incidence=incidences(), channels=st.sampled_from([(5, 4, 3), (2, 7, 9)]))
def test_formula(name: str, incidence: Incidence, channels: tuple[int, int, int]) -> None:
    """Narrowing and widening layers, outputs and all gradients."""
    net = network(name, channels)
    x = torch.randn(incidence.num_vertices, channels[0], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(incidence.num_vertices, channels[2], dtype=torch.float64)
    hidden = torch.relu(slow_layer(name, net.layers[0], x, incidence))
    slow = slow_layer(name, net.layers[1], hidden, incidence)
    inputs = [x, *net.parameters()]
    fast = net(x, incidence)
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)  # the factors are kept in float32
    for a, b in zip(
        torch.autograd.grad((fast * weights).sum(), inputs),
        torch.autograd.grad((slow * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(net.embed(x, incidence), hidden, atol=1e-6, rtol=1e-5)


@settings(max_examples=30)
@given(incidences(weighted=False), st.integers(0, 99))
def test_pyg(incidence: Incidence, seed: int) -> None:
    """HGNN+ without weights is D^-1 H B^-1 H^T X Theta; HGNN is the same between square roots of D."""
    torch.manual_seed(seed)
    peer = HypergraphConv(4, 3, bias=False)
    peer.reset_parameters()
    x = torch.randn(incidence.num_vertices, 4, requires_grad=True)
    theirs = peer(x, pairs_of(incidence), num_edges=incidence.num_edges)
    ours = smooth_hgnnp(peer.lin(x), incidence)
    torch.testing.assert_close(ours, theirs)
    if incidence.to_edges.edges:
        pull = torch.randn_like(ours)
        ours_grad, theirs_grad = (torch.autograd.grad((out * pull).sum(), x)[0] for out in (ours, theirs))
        torch.testing.assert_close(ours_grad, theirs_grad, atol=1e-5, rtol=1e-4)
    degree = incidence.vertex_degree.unsqueeze(1)
    scaled = peer(x * incidence.vertex_inverse_root, pairs_of(incidence), num_edges=incidence.num_edges)
    torch.testing.assert_close(smooth_hgnn(peer.lin(x), incidence), scaled * degree.sqrt())


@settings(max_examples=40)
@given(NAMES, incidences(weighted=False), st.integers(0, 99))
def test_order_of_vertices_and_hyperedges(name: str, incidence: Incidence, seed: int) -> None:
    net = network(name)
    torch.manual_seed(seed)
    x = torch.randn(incidence.num_vertices, 5, dtype=torch.float64)
    place = torch.randperm(incidence.num_vertices)
    edge_place = torch.randperm(incidence.num_edges)
    vertex, edge = pairs_of(incidence)
    pairs = torch.stack([place[vertex], edge_place[edge]])
    moved = Incidence.from_pairs(pairs, incidence.num_vertices, incidence.num_edges)
    shuffled = torch.empty_like(x)
    shuffled[place] = x
    torch.testing.assert_close(net(shuffled, moved)[place], net(x, incidence))


@settings(max_examples=30)
@given(NAMES, incidences(weighted=False), st.integers(0, 9))
def test_repeated_incidences_and_empty_hyperedges_change_nothing(
    name: str, incidence: Incidence, seed: int
) -> None:
    torch.manual_seed(seed)
    net = network(name)
    x = torch.randn(incidence.num_vertices, 5, dtype=torch.float64)
    pairs = pairs_of(incidence)
    twice = torch.cat([pairs, pairs[:, torch.randperm(pairs.shape[1])[:3]]], dim=1)
    same = Incidence.from_pairs(twice, incidence.num_vertices, incidence.num_edges + 2)
    assert same.to_edges.edges == incidence.to_edges.edges
    torch.testing.assert_close(net(x, same), net(x, incidence))


@pytest.mark.parametrize("smooth", [smooth_hgnn, smooth_hgnnp, smooth_unigcn])
def test_isolated_vertices_get_nothing_and_a_lone_vertex_itself(smooth: Callable[..., Tensor]) -> None:
    incidence = Incidence.from_pairs(torch.tensor([[0, 2], [0, 1]]), 4, 3)
    x = torch.randn(4, 2)
    out = smooth(x, incidence)
    torch.testing.assert_close(out[[0, 2]], x[[0, 2]])
    assert out[[1, 3]].eq(0).all()
    empty = Incidence.from_pairs(torch.zeros(2, 0, dtype=torch.int64), 1, 0)
    assert smooth(x[:1], empty).eq(0).all()


@pytest.mark.parametrize("name", sorted(TEACHERS))
def test_every_weight_learns_and_dropout_is_off_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    incidence = Incidence.from_pairs(torch.tensor([[0, 1, 2, 2, 3, 4], [0, 0, 0, 1, 1, 1]]), 5, 2)
    net, x = network(name, (5, 16, 3)).train(), torch.randn(5, 5, dtype=torch.float64)
    net(x, incidence).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert not torch.equal(net.embed(x, incidence), net.embed(x, incidence))
    assert torch.equal(net.eval()(x, incidence), net(x, incidence))


def test_nothing_larger_than_the_incidences_is_made() -> None:
    """One hyperedge around 60,000 vertices: its clique would be 3.6 billion pairs."""
    vertices = 60_000
    pairs = torch.stack([torch.arange(vertices), torch.zeros(vertices, dtype=torch.int64)])
    incidence = Incidence.from_pairs(pairs, vertices, 1)
    x = torch.randn(vertices, 4)
    torch.testing.assert_close(
        smooth_hgnnp(x, incidence), x.mean(0).expand_as(x).contiguous(), atol=1e-5, rtol=1e-4
    )


def test_of_a_hypergraph_keeps_weights() -> None:
    graph = from_edge_lists(torch.randn(3, 1), [[0, 1], [], [2]], edge_weight=torch.tensor([2.0, 1.0, 0.5]))
    incidence = Incidence.of(graph)
    assert Incidence.of(incidence) is incidence
    assert incidence.vertex_degree.tolist() == [2.0, 2.0, 0.5]
    assert incidence.edge_degree.tolist() == [2.0, 0.0, 1.0]
    assert "3 vertices, 3 hyperedges, 3 incidences" in repr(incidence.to("cpu"))
    torch.testing.assert_close(incidence.to("cpu").vertex_degree, incidence.vertex_degree)


@pytest.mark.parametrize(
    ("pairs", "options", "said"),
    [
        ([[0, 3], [0, 0]], {}, "incidence 1 names vertex 3; there are 3"),
        ([[0, -1], [0, 0]], {}, "incidence 1 names vertex -1"),
        ([[0, 1], [0, 2]], {}, "incidence 1 names hyperedge 2; there are 2"),
        ([[0, 0], [1, 1]], {"weight": torch.ones(2)}, "vertex 0 is in hyperedge 1 twice with a weight"),
        ([[0, 1], [0, 0]], {"weight": torch.ones(3)}, "weight has shape"),
        ([[0, 1], [0, 0]], {"edge_weight": torch.tensor([1.0, -1.0])}, "edge_weight 1 is -1.0"),
        ([[0, 1], [0, 0]], {"weight": torch.tensor([float("nan"), 1.0])}, "weight 0 is nan"),
    ],
)
def test_what_is_no_hypergraph(pairs: list[list[int]], options: dict[str, Tensor], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Incidence.from_pairs(torch.tensor(pairs), 3, 2, **options)


def test_impossible_networks() -> None:
    with pytest.raises(ConfigError, match="layers=0"):
        TEACHERS["hgnn"](3, 2, layers=0)
    with pytest.raises(ConfigError, match=r"dropout=1"):
        TEACHERS["hgnn"](3, 2, dropout=1.0)
    assert isinstance(TEACHERS["hgnn"](3, 2, layers=1).layers[0], SmoothingConv)
