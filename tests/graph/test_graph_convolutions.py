"""Convolutions compute what PyG's do, on every odd graph, with the same gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from graphrec.errors import DataError
from graphrec.graph.convolutions import GATConv, GatedGCNConv, GCNConv, GINConv, SAGEConv
from graphrec.graph.topology import Topology

Make = Callable[[], nn.Module]
PAIRS: dict[str, tuple[Make, Make]] = {
    "gcn": (lambda: GCNConv(5, 7), lambda: pyg.GCNConv(5, 7)),
    "gcn, narrowing": (lambda: GCNConv(5, 3), lambda: pyg.GCNConv(5, 3)),
    "gin": (
        lambda: GINConv(nn.Linear(5, 7), train_eps=True),
        lambda: pyg.GINConv(nn.Linear(5, 7), eps=0.3, train_eps=True),
    ),
    "gat": (lambda: GATConv(5, 4, heads=3), lambda: pyg.GATConv(5, 4, heads=3)),
    "graphsage": (lambda: SAGEConv(5, 7), lambda: pyg.SAGEConv(5, 7)),
    "gatedgcn": (lambda: GatedGCNConv(5, 7), lambda: pyg.ResGatedGraphConv(5, 7)),
}

GRAPHS: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "one node": (1, []),
    "one node with a loop": (1, [(0, 0)]),
    "no edges": (4, []),
    "loops": (4, [(0, 0), (1, 1), (0, 1), (2, 3)]),
    "duplicates": (4, [(0, 1), (0, 1), (0, 1), (3, 1), (1, 0)]),
    "disconnected": (6, [(0, 1), (1, 0), (2, 3), (3, 2)]),
    "directed": (5, [(4, 0), (3, 0), (2, 1), (0, 4)]),
}


def edges(name: str) -> tuple[int, Tensor]:
    nodes, pairs = GRAPHS[name]
    return nodes, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()


def randomised(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("kind", PAIRS)
def test_equals_pyg(kind: str, graph: str) -> None:
    ours, theirs = (make() for make in PAIRS[kind])
    randomised(theirs)
    ours.double().load_state_dict(theirs.state_dict())
    nodes, edge_index = edges(graph)
    x = torch.randn(nodes, 5, dtype=torch.float64, requires_grad=True)
    found, want = ours(x, edge_index), theirs(x, edge_index)
    # gcn_weight is kept in float32
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(found, want, **close)
    grad = torch.randn_like(want)
    inputs = [x, *ours.parameters()]
    got = torch.autograd.grad(found, inputs, grad, retain_graph=True)
    expected = torch.autograd.grad(want, [x, *theirs.parameters()], grad)
    by_name = dict(zip([name for name, _ in theirs.named_parameters()], expected[1:], strict=True))
    torch.testing.assert_close(got[0], expected[0], **close)
    for (name, _), one in zip(ours.named_parameters(), got[1:], strict=True):
        torch.testing.assert_close(one, by_name[name], **close)


@pytest.mark.parametrize("graph", GRAPHS)
def test_normalised_gates(graph: str) -> None:
    conv = randomised(GatedGCNConv(5, 3, normalise=True))
    nodes, edge_index = edges(graph)
    x = torch.randn(nodes, 5, dtype=torch.float64)
    want = conv.lin_skip(x) + conv.bias
    gates, sums = torch.zeros(nodes, 3).double(), torch.zeros(nodes, 3).double()
    for source, target in edge_index.t().tolist():
        gate = (conv.lin_key(x[target]) + conv.lin_query(x[source])).sigmoid()
        gates[target] += gate
        sums[target] += gate * conv.lin_value(x[source])
    torch.testing.assert_close(conv(x, edge_index), want + sums / (gates + 1e-6))


@pytest.mark.parametrize("kind", PAIRS)
def test_topology_equals_edge_index(kind: str) -> None:
    conv = PAIRS[kind][0]()
    edge_index, x = torch.randint(0, 9, (2, 40)), torch.randn(9, 5)
    topology = Topology.of(edge_index, 9)
    torch.testing.assert_close(conv(x, topology), conv(x, edge_index))
    assert Topology.of(topology, 9) is topology
    for edge, given in enumerate(topology.order.tolist()):
        assert edge_index[0, given] == topology.graph.index[edge]
        assert edge_index[1, given] == topology.graph.row[edge]


def test_sorted_edges_are_taken_as_they_are() -> None:
    edge_index = torch.tensor([[1, 2, 0, 2, 0], [0, 0, 1, 1, 2]])
    topology = Topology.of(edge_index, 4)
    assert topology.order.tolist() == [0, 1, 2, 3, 4]
    assert topology.graph.ptr.tolist() == [0, 2, 4, 5, 5]


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.tensor([[0, 1], [1, 5]]), r"edge 1 \(1 -> 5\).*missing node; nodes are 0 to 3"),
        (torch.tensor([[0, -1], [1, 2]]), r"edge 1 \(-1 -> 2\)"),
        (torch.zeros(3, 2, dtype=torch.int64), "must be integers of shape"),
        (torch.zeros(2, 2), "must be integers of shape"),
    ],
)
def test_bad_edges_are_named(edge_index: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Topology.of(edge_index, 4)


def test_topology_of_another_graph_is_refused() -> None:
    with pytest.raises(DataError, match="has 3 nodes, the features 4"):
        Topology.of(Topology.of(torch.tensor([[0], [1]]), 3), 4)
