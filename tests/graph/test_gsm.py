"""GSM as a model: tokens and their mixture by hand, ties, odd graphs, precision, plans, saving, learning."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError
from graphrec.graph import GraphClassifier, NodeClassifier, Topology
from graphrec.graph.gsm import GSMBackbone, draw_cluster_tree
from graphrec.graph.gsm import model as model_file
from graphrec.graph.gsm.drawing import cluster_tree
from graphrec.graph.gsm.tokens import GroupTokens, MixedTokens
from graphrec.pipelines.graphs import GraphSet, colour_counting_graphs, connectivity_graphs
from graphrec.pipelines.index_splits import IndexSplit, random_parts
from graphrec.registry import create_model, list_models

SMALL: dict[str, Any] = {"hidden": 8, "layers": 2, "heads": 2, "states": 2, "expand": 1}
GRAPH_MODELS, NODE_MODELS = list_models("gsm*", task="graph"), list_models("node_gsm*", task="node")
OPTIONS = (
    {"tokeniser": "node", "encoder": "mamba"},
    {"tokeniser": "node", "encoder": "hybrid", "positions": False},
    {"tokeniser": "dfs", "encoder": "transformer", "scales": 4, "hops": 2},
    {"tokeniser": "dfs", "attention": "linear"},
    {"tokeniser": "khop", "encoder": "mamba", "bidirectional": False},
    {"tokeniser": "bfs", "attention": "linear"},
    {"tokeniser": ["dfs", "khop"], "window": 1},
)


def few_kinds(nodes: int, edges: int, seed: int) -> Data:
    """A graph of nodes of two kinds, of whom many tie; loops and repeated edges among its edges."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, nodes, (2, edges), generator=generator)
    x = torch.eye(2, dtype=torch.float64)[torch.randint(0, 2, (nodes,), generator=generator)]
    return Data(x=x, edge_index=torch.cat([ends, ends.flip(0)], 1))


def renumbered(data: Data, seed: int) -> tuple[Data, Tensor]:
    old = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(seed))
    return Data(x=data.x[old], edge_index=old.argsort()[data.edge_index]), old


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@settings(max_examples=6)
@given(nodes=st.integers(1, 14), edges=st.integers(0, 24), seed=st.integers(0, 999))
def test_ties_leave_outputs_alone(options: dict[str, Any], nodes: int, edges: int, seed: int) -> None:
    """Nodes that nothing tells apart have one output, and numbers make no difference (in a whole window)."""
    torch.manual_seed(0)
    more = {**SMALL, **options, "window": None}
    model = create_model("node_gsm++", 2, 3, **more).double().eval()
    data = few_kinds(nodes, edges, seed)
    other, old = renumbered(data, seed)
    torch.testing.assert_close(model(other.x, other.edge_index), model(data.x, data.edge_index)[old])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rings_look_alike_everywhere(options: dict[str, Any]) -> None:
    model = create_model("node_gsm++", 1, 3, **{**SMALL, **options, "window": None}).double().eval()
    ring = torch.arange(7)
    ends = torch.stack([ring, (ring + 1) % 7])
    found = model(torch.ones(7, 1).double(), torch.cat([ends, ends.flip(0)], 1))
    torch.testing.assert_close(found, found[:1].expand(7, 3))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_of_odd_graphs(options: dict[str, Any]) -> None:
    """One node, no edges, loops, repeated edges, components, isolated nodes; alone and together."""
    graphs = [
        few_kinds(1, 0, 0),
        few_kinds(1, 2, 1),
        few_kinds(7, 0, 2),
        few_kinds(5, 9, 3),
        few_kinds(23, 12, 4),
    ]
    data = GraphSet.from_data_list(
        [Data(x=g.x.float(), edge_index=g.edge_index, y=torch.zeros(1).long()) for g in graphs]
    )
    model = create_model("gsm++", 2, 3, **{**SMALL, **options}).double()
    batch = data.batch()
    for _ in range(2):
        model(batch.x.double(), batch.edge_index, batch.batch)
    model.eval()
    alone = torch.cat([model(one.x.double(), one.edge_index) for one in data])
    torch.testing.assert_close(model(batch.x.double(), batch.edge_index, batch.batch), alone)
    model.train()
    model(batch.x.double(), batch.edge_index, batch.batch).square().sum().backward()
    assert [name for name, one in model.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("name", NODE_MODELS)
def test_precisions(name: str) -> None:
    torch.manual_seed(0)
    data = few_kinds(30, 60, 0)
    model = create_model(name, 2, 3, **SMALL).eval()
    single = model(data.x.float(), data.edge_index)
    double = copy.deepcopy(model).double()(data.x, data.edge_index)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
    half = copy.deepcopy(model).bfloat16()(data.x.bfloat16(), data.edge_index)
    assert half.dtype == torch.bfloat16
    assert (half.double() - double).norm() / double.norm() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(data.x.float(), data.edge_index)
    assert (mixed.double() - double).norm() / double.norm() < 0.05


def test_options_are_the_backbones() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'widow'"):
        model_file.GSMGraphModel(2, 3, widow=4)
    graph, node = model_file.GSMGraphModel(2, 3, **SMALL), model_file.GSMNodeModel(2, 3, **SMALL)
    norms = [type(model.backbone.local.norms[0]) for model in (graph, node)]  # type: ignore[index, union-attr]
    assert norms[0] is not norms[1] is torch.nn.LayerNorm
    assert graph.head[-1].out_features == node.head.out_features == 3


def test_neighbourhood_tokens_by_hand() -> None:
    data = few_kinds(12, 14, 5)
    tokens = GroupTokens(2, 1, groups="khop", scales=3, encoder="transformer").double()
    seen: list[Tensor] = []
    tokens.encoder.rows = lambda x: seen.append(x) or x  # type: ignore[method-assign, func-returns-value]
    backbone = GSMBackbone(2, 8, 1, tokeniser="khop")
    backbone.tokens = tokens
    plan = backbone.plan(data.x, Topology.of(data.edge_index, 12), torch.tensor([0, 12]))
    tokens(data.x, plan)
    graph = nx.Graph(data.edge_index.t().tolist())
    graph.add_nodes_from(range(12))
    for node, far in nx.all_pairs_shortest_path_length(graph):
        for hops in range(4):
            shell = [other for other, steps in far.items() if steps == hops]
            want = data.x[shell].mean(0) if shell else torch.zeros(2).double()
            torch.testing.assert_close(seen[0][node, 3 - hops], want + tokens.places[3 - hops])


def test_cluster_tokens_by_hand() -> None:
    data = few_kinds(20, 26, 6)
    tree = cluster_tree(data.x, data.edge_index, rounds=1)
    tokens = GroupTokens(2, 1, groups="bfs", scales=2, encoder="transformer").double()
    seen: list[Tensor] = []
    tokens.encoder.rows = lambda x: seen.append(x) or x  # type: ignore[method-assign, func-returns-value]
    backbone = GSMBackbone(2, 8, 1, tokeniser="bfs")
    backbone.tokens = tokens
    tokens(data.x, backbone.plan(data.x, Topology.of(data.edge_index, 20), torch.tensor([0, 20])))
    for place, level in enumerate((int(tree.height[0]), 1)):
        cluster = torch.from_numpy(tree.levels[level].cluster)
        for node in range(20):
            want = data.x[cluster == cluster[node]].mean(0)
            torch.testing.assert_close(seen[0][node, place], want + tokens.places[place])
    torch.testing.assert_close(seen[0][:, 2], data.x + tokens.places[2])


class Scaled(torch.nn.Module):
    """A tokeniser that multiplies."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, plan: Any) -> Tensor:
        return x * self.factor


def test_mixture_by_hand() -> None:
    mixed = MixedTokens(4, [Scaled(1.0), Scaled(10.0), Scaled(100.0)])
    x = torch.randn(6, 4)
    found, scores = mixed(x, [None] * 3), mixed.scores(x)
    for node in range(6):
        first, second = scores[node].argsort(descending=True)[:2].tolist()
        both = torch.cat(
            [10.0**first * scores[node, first] * x[node], 10.0**second * scores[node, second] * x[node]]
        )
        torch.testing.assert_close(found[node], mixed.join(both))
    assert len({tuple(row.argsort().tolist()) for row in scores}) > 1, "nodes choose differently"
    found.sum().backward()
    assert mixed.router.weight.grad.abs().sum() > 0


def test_plans_are_kept_with_the_topology(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = model_file._graphs
    monkeypatch.setattr(model_file, "_graphs", lambda *given: made.append(1) or plain(*given))
    data, model = few_kinds(9, 12, 0), create_model("node_gsm++", 2, 3, **SMALL).double().eval()
    topology = Topology.of(data.edge_index, 9)
    first = model(data.x, topology)
    torch.testing.assert_close(model(data.x, topology), first)
    assert len(made) == 1
    copy.deepcopy(model)(data.x, topology)
    assert len(made) == 2
    model(data.x, data.edge_index)
    assert len(made) == 3
    data.x[0] = data.x[0].flip(0)
    changed = model(data.x, topology)
    assert len(made) == 4
    torch.testing.assert_close(changed, model(data.x.clone(), data.edge_index))
    kept = model.backbone._kept
    assert len(kept) == 1
    del topology
    assert len(kept) == 0
    pickle.loads(pickle.dumps(model))


def test_windows_cut_long_sequences() -> None:
    """Without Mamba and local layers, far nodes do not see each other in a window."""
    nodes = 40
    path = torch.arange(nodes - 1)
    ends = torch.stack([path, path + 1])
    data = Data(x=torch.randn(nodes, 2).double(), edge_index=torch.cat([ends, ends.flip(0)], 1))
    options = {**SMALL, "encoder": "transformer", "conv": "mlp", "positions": False, "window": 2}
    model = create_model("node_gsm++", 2, 3, **options).double().eval()
    x = data.x.clone().requires_grad_()
    order = model.backbone.plan(x, Topology.of(data.edge_index, nodes), torch.tensor([0, nodes])).nodes
    model(x, data.edge_index)[order[20]].sum().backward()
    reached = x.grad.abs().sum(1)[order].nonzero().flatten().tolist()
    assert reached == list(range(16, 25)), "two layers of two to either side"


def test_memory_is_asked_for_politely() -> None:
    model = create_model("node_gsm", 1, 2, **SMALL, window=None)
    with pytest.raises(ConfigError, match=r"window=None: attention over 9000 nodes, .* smaller window"):
        model(torch.ones(9000, 1), torch.zeros(2, 0, dtype=torch.int64))
    found = create_model("node_gsm", 1, 2, **SMALL, window=None, attention="linear")(
        torch.ones(9000, 1), torch.zeros(2, 0, dtype=torch.int64)
    )
    assert found.shape == (9000, 2)


def test_mistakes_are_named() -> None:
    for options, said in (
        ({"tokeniser": "edge"}, "tokeniser='edge': must be one of node, khop, dfs, bfs"),
        ({"tokeniser": []}, "name one tokeniser"),
        ({"tokeniser": ["dfs", "dfs"]}, "several different ones"),
        ({"window": 0}, "window=0: must be at least 1"),
        ({"scales": 0}, "scales=0"),
        ({"scales": 8, "hops": 3}, "at most 65536"),
        ({"encoder": "lstm"}, "encoder='lstm'"),
        ({"heads": 3}, "hidden=8"),
        ({"readout": "first"}, "readout='first'"),
    ):
        with pytest.raises(ConfigError, match=said.replace("*", r"\*")):
            create_model("gsm++", 2, 2, **{**SMALL, **options})
    x = torch.ones(3, 2)
    x[1, 0] = torch.nan
    with pytest.raises(DataError, match="a feature of node 1 is not finite"):
        create_model("node_gsm++", 2, 2, **SMALL)(x, torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(DataError, match="leads to a missing node"):
        create_model("node_gsm++", 2, 2, **SMALL)(torch.ones(3, 2), torch.tensor([[0], [3]]))


def test_global_layers_may_be_dropped_more() -> None:
    """Local activations stay those of evaluation; what the global encoder adds does not."""
    torch.manual_seed(0)
    backbone = GSMBackbone(3, 8, 2, heads=2, states=2, expand=1, norm="layer", global_dropout=0.9)
    data = few_kinds(12, 30, seed=1)
    x = torch.cat([data.x, torch.ones(12, 1)], 1).float()
    evaluated = backbone.eval()(x, data.edge_index)
    dropped = backbone.train()(x, data.edge_index)
    for one, other in zip(evaluated[:-1], dropped[:-1], strict=True):
        assert torch.equal(one, other)
    assert not torch.allclose(evaluated[-1], dropped[-1], atol=0.1)
    model = NodeClassifier("gsm++", model_options={"global_dropout": 1.0})
    with pytest.raises(ConfigError, match=r"global_dropout=1\.0: must be"):
        model.fit(
            Data(x=x, edge_index=data.edge_index, y=torch.arange(12) % 2),
            split=IndexSplit.of([0, 1], [2], [3], 12),
        )


def test_save_and_load(tmp_path: Path) -> None:
    graphs = connectivity_graphs(12, nodes=(8, 12))
    found = GraphClassifier("gsm++mot", model_options=SMALL, epochs=1, random_state=0).fit(graphs)
    found.save(tmp_path / "graphs")
    assert np.array_equal(
        GraphClassifier.load(tmp_path / "graphs").predict_proba(graphs), found.predict_proba(graphs)
    )
    data = few_kinds(30, 60, 1)
    data.x, data.y = data.x.float(), torch.arange(30) % 2
    split = IndexSplit.of(
        torch.arange(20), torch.arange(20, 25), torch.arange(25, 30), total=30, name="thirds"
    )
    nodes = NodeClassifier("gsm++", model_options=SMALL, epochs=2, random_state=0).fit(data, split=split)
    nodes.save(tmp_path / "nodes")
    assert np.array_equal(NodeClassifier.load(tmp_path / "nodes").predict(data), nodes.predict(data))


def test_a_histograph_reads_all_layers() -> None:
    model = create_model("gsm++", 2, 3, **SMALL, readout="histograph")
    assert len(model.readout.lift) == model.backbone.depth == 4
    data = few_kinds(9, 12, 0)
    assert model(data.x.float(), data.edge_index).shape == (1, 3)


def test_clusters_tell_components_apart() -> None:
    """Connectivity of two marked nodes: beyond two layers of message passing, within reach of clusters."""
    graphs = connectivity_graphs(200, nodes=(16, 24), seed=1)
    split = random_parts(graphs.y, valid=0.1, test=0.3, seed=0)
    fast: dict[str, Any] = {"epochs": 12, "learning_rate": 0.005, "batch_size": 16, "patience": None}
    fast["random_state"] = 0
    options = {"hidden": 16, "layers": 2}
    found = GraphClassifier("gsm++bfs", model_options={**options, "encoder": "transformer"}, **fast)
    found.fit(graphs, split=split)
    floor = GraphClassifier("gcn", model_options=options, **fast).fit(graphs, split=split)
    assert found.metrics_["test"]["accuracy"] > 0.85
    assert floor.metrics_["test"]["accuracy"] < 0.7


def test_generated_graphs_are_what_they_say() -> None:
    joined = connectivity_graphs(40, nodes=(6, 20), seed=5)
    assert joined.classes == ("apart", "joined")
    assert joined.y.float().mean() == 0.5
    for one in joined:
        graph = nx.Graph(one.edge_index.t().tolist())
        marked = one.x[:, 1].nonzero().flatten().tolist()
        assert nx.number_connected_components(graph) == 2
        assert len(marked) == 2
        assert nx.has_path(graph, *marked) == bool(one.y)
        assert 6 <= one.num_nodes <= 20
    coloured = colour_counting_graphs(40, nodes=(9, 15), most=4, seed=5)
    assert coloured.classes == ("0", "1", "2", "3", "4")
    for one in coloured:
        assert one.x.sum(1).eq(1).all()
        assert int(one.x[:, 0].sum()) == int(one.y)
        assert nx.is_connected(nx.Graph(one.edge_index.t().tolist()))
    assert torch.equal(connectivity_graphs(5, seed=1).x, connectivity_graphs(5, seed=1).x)
    for make, nodes in (
        (connectivity_graphs, (5, 9)),
        (colour_counting_graphs, (8, 20)),
        (connectivity_graphs, (9, 8)),
    ):
        with pytest.raises(ConfigError, match="nodes="):
            make(3, nodes=nodes)


def test_trees_are_drawn() -> None:
    data = few_kinds(24, 30, 2)
    figure = draw_cluster_tree(data.x, data.edge_index)
    left, right = figure.axes
    tree = cluster_tree(data.x, data.edge_index)
    assert len(left.collections[0].get_offsets()) == 24
    assert len(right.collections[0].get_offsets()) == 24
    inner = sum(len(one.get_offsets()) for one in right.collections[1:])
    merges = sum(int((np.bincount(tree.parents(level)) > 1).sum()) for level in range(len(tree.levels) - 1))
    assert inner == merges
    for level in (0, 99):
        draw_cluster_tree(data.x, data.edge_index, level=level)
    draw_cluster_tree(torch.ones(1, 1), torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(DataError, match="the graph has 401 nodes"):
        draw_cluster_tree(torch.ones(401, 1), torch.zeros(2, 0, dtype=torch.int64))
