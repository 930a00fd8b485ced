"""The networks by their cards: a graph's output is its own, node numbers mean nothing, everything learns."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MaxAggregation, MeanAggregation, SumAggregation, global_add_pool

from graphrec.errors import ConfigError
from graphrec.graph.backbones import CONVOLUTIONS, Backbone
from graphrec.graph.batches import GraphBatches
from graphrec.graph.models import GraphModel, NodeModel
from graphrec.graph.readouts import READOUTS, SortPooling, make_readout
from graphrec.graph.topology import Topology
from graphrec.pipelines.graphs import GraphSet
from graphrec.registry import card, create_model, list_models

ROOT = Path(__file__).parents[2]
SMALL = {"hidden": 8, "layers": 2, "heads": 2}
GRAPH_MODELS, NODE_MODELS = list_models(task="graph"), list_models(task="node")


def graph(nodes: int, edges: int, seed: int) -> Data:
    """Any edges: loops, duplicates and isolated nodes among them."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, nodes, (2, edges), generator=generator)
    x = torch.randn(nodes, 4, generator=generator)
    return Data(x=x, edge_index=edge_index, y=torch.tensor([seed % 2]))


ODD = [graph(1, 0, 0), graph(6, 14, 1), graph(1, 2, 2), graph(5, 0, 3), graph(9, 5, 4), graph(30, 80, 5)]
ODD[0].y, ODD[1].y = torch.tensor([0]), torch.tensor([1])


def evaluating(name: str, **options: object) -> torch.nn.Module:
    """A model whose batch norms have seen something, so that they are no identities."""
    torch.manual_seed(0)
    model = create_model(name, 4, 3, **{**SMALL, **options}).double()
    batch = GraphSet.from_data_list(ODD).batch()
    for _ in range(3):
        model(batch.x.double(), batch.edge_index, batch.batch)
    return model.eval()


def permuted(data: Data, seed: int) -> tuple[Data, Tensor]:
    """The graph with other node numbers and order of edges, and the old number of each node."""
    generator = torch.Generator().manual_seed(seed)
    old = torch.randperm(data.num_nodes, generator=generator)
    edges = old.argsort()[data.edge_index][:, torch.randperm(data.num_edges, generator=generator)]
    return Data(x=data.x[old], edge_index=edges), old


@pytest.mark.parametrize("name", GRAPH_MODELS)
def test_batch_independence(name: str) -> None:
    model, graphs = evaluating(name), GraphSet.from_data_list(ODD)
    batch = graphs.batch()
    together = model(batch.x.double(), batch.edge_index, batch.batch)
    alone = torch.cat([model(one.x.double(), one.edge_index) for one in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert (together[1] - together[4]).abs().max() > 1e-4, "graphs must differ for this to mean anything"


@pytest.mark.parametrize("jk", ["last", "cat"])
@pytest.mark.parametrize("readout", READOUTS)
def test_batch_independence_of_readouts(readout: str, jk: str) -> None:
    model, graphs = evaluating("gin", readout=readout, jk=jk), GraphSet.from_data_list(ODD)
    batch = graphs.batch()
    together = model(batch.x.double(), batch.edge_index, batch.batch)
    alone = torch.cat([model(one.x.double(), one.edge_index) for one in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("reduce", "pyg"), [("sum", SumAggregation), ("mean", MeanAggregation), ("max", MaxAggregation)]
)
def test_pooling_equals_pyg(reduce: str, pyg: type[torch.nn.Module]) -> None:
    batch = GraphSet.from_data_list(ODD).batch()
    pool, width = make_readout(reduce, 4)
    assert width == 4
    found, grads = [], []
    for one, more in ((pool, {"ptr": batch.ptr}), (pyg(), {})):
        x = batch.x.double().requires_grad_()
        found.append(one(x, batch.batch, dim_size=len(ODD), **more))
        grads.append(torch.autograd.grad(found[-1].sin().sum(), x)[0])
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("readout", ["sum", "sort"])
def test_jumping_knowledge_reads_all_layers(readout: str) -> None:
    """As published for GIN: layers of one's own size, epsilon 0, the readouts of all layers side by side."""
    torch.manual_seed(0)
    model = GraphModel(
        4, 3, hidden=8, layers=3, conv="gin0", norm="none", embed=False, readout=readout, jk="cat"
    )
    batch = GraphSet.from_data_list(ODD).batch()
    layers, x = [], batch.x
    for conv in model.backbone.convs:
        assert not conv.eps.requires_grad
        sums = x.clone().index_add(0, batch.edge_index[1], x[batch.edge_index[0]])
        layers.append(x := conv.nn(sums).relu())
    if readout == "sum":
        pooled = torch.cat([global_add_pool(one, batch.batch) for one in layers], 1)
    else:
        pooled = model.readout(torch.cat(layers, 1), batch.batch, dim_size=len(ODD))
    torch.testing.assert_close(model(batch.x, batch.edge_index, batch.batch), model.head(pooled))


@pytest.mark.parametrize("name", GRAPH_MODELS)
@settings(max_examples=8)
@given(nodes=st.integers(1, 12), edges=st.integers(0, 30), seed=st.integers(0, 1000))
def test_permutation(name: str, nodes: int, edges: int, seed: int) -> None:
    model, data = evaluating(name), graph(nodes, edges, seed)
    other, _ = permuted(data, seed)
    want = model(data.x.double(), data.edge_index)
    torch.testing.assert_close(model(other.x.double(), other.edge_index), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NODE_MODELS)
@settings(max_examples=8)
@given(nodes=st.integers(1, 12), edges=st.integers(0, 30), seed=st.integers(0, 1000))
def test_node_permutation(name: str, nodes: int, edges: int, seed: int) -> None:
    model, data = evaluating(name), graph(nodes, edges, seed)
    other, old = permuted(data, seed)
    want = model(data.x.double(), data.edge_index)[old]
    torch.testing.assert_close(model(other.x.double(), other.edge_index), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*GRAPH_MODELS, *NODE_MODELS])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = create_model(name, 4, 3, **{**SMALL, "residual": True})
    batch = GraphSet.from_data_list(ODD).batch()
    model(batch.x, batch.edge_index, batch.batch).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_history_has_every_layer() -> None:
    data = graph(7, 20, 0)
    for conv in CONVOLUTIONS:
        history = Backbone(4, 8, 3, conv=conv)(data.x, data.edge_index)
        assert [tuple(one.shape) for one in history] == [(7, 8)] * 4
    plain = Backbone(4, 8, 1, conv="gcn", norm="none").eval()
    first, last = plain(data.x, data.edge_index)
    torch.testing.assert_close(first, plain.embed(data.x))
    torch.testing.assert_close(last, plain.convs[0](first, data.edge_index).relu())
    plain.residual = True
    torch.testing.assert_close(plain(data.x, data.edge_index)[1], first + last)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_batches_equal_those_of_the_set(chosen: list[int]) -> None:
    graphs = GraphSet.from_data_list(ODD)
    cut, want = GraphBatches(graphs, 4).cut(torch.tensor(chosen)), graphs.batch(chosen)
    assert cut.topology is not None
    assert torch.equal(cut.x, want.x)
    assert torch.equal(cut.batch, want.batch)
    assert torch.equal(cut.ptr, want.ptr)
    assert torch.equal(cut.labels, want.y)
    topology, own = cut.topology, Topology.of(want.edge_index, len(want.x))
    source, target = want.edge_index[:, topology.order]
    assert torch.equal(source, topology.graph.index)
    assert torch.equal(target, topology.graph.row)
    (back, order), (want_back, _) = topology.graph.transpose, own.graph.transpose
    assert torch.equal(back.ptr, want_back.ptr)
    assert torch.equal(topology.graph.row[order], back.index)
    assert torch.equal(topology.graph.index[order], back.row)


def test_batches_shuffle_and_cover() -> None:
    graphs = GraphSet.from_data_list(ODD)
    source = GraphBatches(graphs, 4, shuffle=True, seed=1)
    epochs = [torch.cat([batch.ptr.diff() for batch in source.epoch(epoch)]).tolist() for epoch in range(4)]
    assert all(sorted(sizes) == sorted(graphs.sizes.tolist()) for sizes in epochs)
    assert len({tuple(sizes) for sizes in epochs}) > 1
    assert [len(b.labels) for b in source.epoch(0, start_step=1)] == [2]


def test_wrong_names_are_named() -> None:
    with pytest.raises(ConfigError, match="conv='gnn'"):
        GraphModel(4, 2, conv="gnn")
    with pytest.raises(ConfigError, match="readout='first'"):
        GraphModel(4, 2, readout="first")
    with pytest.raises(ConfigError, match="jk='max'"):
        GraphModel(4, 2, readout="sum", jk="max")
    with pytest.raises(ConfigError, match=r"jk='cat'.*histograph"):
        GraphModel(4, 2, jk="cat")
    with pytest.raises(ConfigError, match="readout='sum'"):
        NodeModel(4, 2, readout="sum")
    with pytest.raises(ConfigError, match="layers=0"):
        Backbone(4, layers=0)
    with pytest.raises(ConfigError, match="keep=9"):
        SortPooling(8, keep=9)
    with pytest.raises(ConfigError, match="hidden=10"):
        Backbone(4, 10, conv="gat", heads=4)
    with pytest.raises(ConfigError, match="readout='x'"):
        make_readout("x", 3)


@pytest.mark.parametrize("name", [*GRAPH_MODELS, *NODE_MODELS])
def test_cards_tell_the_truth(name: str) -> None:
    assert card(name).paper.startswith("https://")
    assert card(name).verified
    for test in card(name).verified.values():
        file, function = test.split("::")
        tree = ast.walk(ast.parse((ROOT / file).read_text()))
        assert function in {node.name for node in tree if isinstance(node, ast.FunctionDef)}
