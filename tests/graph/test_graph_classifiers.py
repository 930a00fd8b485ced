"""The estimators learn what a broken network cannot, in both modes, and survive saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError, RunError
from graphrec.graph import NodeModel
from graphrec.graph.classifier import GraphClassifier, NodeClassifier
from graphrec.pipelines.graphs import GraphSet
from graphrec.pipelines.index_splits import IndexSplit, per_class, random_parts

OPTIONS = {"hidden": 16, "layers": 3}
FAST = {"epochs": 25, "learning_rate": 0.01, "batch_size": 32, "model_options": OPTIONS, "random_state": 0}


def ring(nodes: int) -> torch.Tensor:
    start = torch.arange(nodes)
    pairs = torch.stack([start, (start + 1) % nodes])
    return torch.cat([pairs, pairs.flip(0)], 1)


def coloured_rings(count: int = 160) -> GraphSet:
    """Rings of 12 nodes, six of either colour: alternating in pairs (class 1) or in two halves (class 0).

    All have the same nodes and degrees; only who is whose neighbour tells them apart.
    """
    generator, graphs = torch.Generator().manual_seed(0), []
    for i in range(count):
        colour = torch.arange(12) // 2 % 2 if i % 2 else torch.arange(12) // 6
        old = torch.randperm(12, generator=generator)
        x = torch.nn.functional.one_hot(colour, 2).float()[old]
        graphs.append(Data(x=x, edge_index=old.argsort()[ring(12)], y=torch.tensor([i % 2])))
    return GraphSet.from_data_list(graphs, classes=["halves", "pairs"], name="rings")


RINGS = coloured_rings()
SPLIT = random_parts(RINGS.y, valid=0.2, test=0.3, seed=1)


def communities(size: int = 100, noise: float = 2.5) -> Data:
    """Three groups of nodes; edges tell the group far better than the noisy features do."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), size)
    likely = np.where(y[:, None] == y, 0.12, 0.01)
    upper = np.triu(rng.random((3 * size, 3 * size)) < likely, 1)
    x = np.eye(3)[y].repeat(3, 1) + rng.normal(size=(3 * size, 9)) * noise
    edges = torch.from_numpy(np.stack(np.nonzero(upper | upper.T)))
    return Data(x=torch.from_numpy(x).float(), edge_index=edges, y=torch.from_numpy(y))


GROUPS = communities()
NODES = per_class(GROUPS.y, train=40, valid=20, test=None, valid_per_class=True, seed=0)


@pytest.mark.parametrize("model", ["histograph", "gin", "gcn", "gat", "graphsage", "gatedgcn", "gps"])
def test_graphs_are_told_apart_by_their_edges(model: str) -> None:
    found = GraphClassifier(model, **FAST).fit(RINGS, split=SPLIT)
    assert found.metrics_["test"]["accuracy"] > 0.95
    assert found.score(RINGS[SPLIT.test]) == pytest.approx(found.metrics_["test"]["accuracy"])


def test_without_edges_they_are_not() -> None:
    found = GraphClassifier("mlp", **FAST).fit(RINGS, split=SPLIT)
    assert found.metrics_["test"]["accuracy"] < 0.7


def test_frozen_backbone() -> None:
    backbone = GraphClassifier("gin", **{**FAST, "epochs": 2}).fit(RINGS, split=SPLIT)
    frozen = GraphClassifier("histograph", mode="frozen", **FAST).fit(RINGS, split=SPLIT, backbone=backbone)
    assert frozen.metrics_["test"]["accuracy"] > 0.9
    ours, theirs = frozen.module_.backbone.state_dict(), backbone.module_.backbone.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    both = GraphClassifier("histograph", mode="frozen", **FAST).fit(RINGS, split=SPLIT)
    assert len(both.history_) > len(frozen.history_)
    assert both.metrics_["test"]["accuracy"] > 0.9


def test_frozen_activations_equal_the_network() -> None:
    """Training on cached activations measures the same as the whole network on the graphs."""
    found = GraphClassifier("histograph", mode="frozen", **{**FAST, "epochs": 3, "patience": None})
    found.fit(RINGS, split=SPLIT)
    best = min(row["valid_logloss"] for row in found.history_[3:])
    assert found.metrics_["valid"]["logloss"] == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize("model", ["histograph", "gcn", "graphsage"])
def test_nodes_are_told_apart_by_their_edges(model: str) -> None:
    options = {"hidden": 16}
    found = NodeClassifier(model, epochs=60, model_options=options, random_state=0).fit(GROUPS, split=NODES)
    assert found.metrics_["test"]["accuracy"] > 0.75
    floor = NodeClassifier("mlp", epochs=60, model_options=options, random_state=0).fit(GROUPS, split=NODES)
    assert floor.metrics_["test"]["accuracy"] < 0.65


def test_nodes_with_a_frozen_backbone() -> None:
    arguments = {"epochs": 40, "model_options": {"hidden": 16}, "random_state": 0}
    found = NodeClassifier("histograph", mode="frozen", **arguments).fit(GROUPS, split=NODES)
    assert found.metrics_["test"]["accuracy"] > 0.7
    assert found.score(GROUPS, nodes=NODES.test) == pytest.approx(found.metrics_["test"]["accuracy"])


@pytest.mark.parametrize("attention", [False, True])
def test_histograph_begins_as_a_plain_network(attention: bool) -> None:
    torch.manual_seed(0)
    x, options = torch.randn(9, 5), {"hidden": 8, "layers": 3}
    plain = NodeModel(5, 4, readout="last", **options)
    ours = NodeModel(5, 4, readout_options={"node_attention": attention}, **options)
    ours.backbone.load_state_dict(plain.backbone.state_dict())
    ours.begin_as(plain)
    plain.eval(), ours.eval()
    torch.testing.assert_close(ours(x, ring(9)), plain(x, ring(9)))
    ours(x, ring(9)).square().sum().backward()  # from here every layer can come in
    assert all(lift.weight.grad.abs().max() > 0 for lift in ours.readout.lift)
    for other in (ours, NodeModel(5, 3, readout="last", **options)):
        with pytest.raises(ConfigError, match="needs readout='last' and a head of"):
            ours.begin_as(other)


def test_frozen_nodes_begin_at_the_given_network() -> None:
    arguments = {"model_options": {"hidden": 16}, "random_state": 0}
    plain = NodeClassifier("gcn", epochs=40, **arguments).fit(GROUPS, split=NODES)
    still = {"epochs": 1, "learning_rate": 1e-12}
    found = NodeClassifier("histograph", mode="frozen", **still, **arguments)
    found.fit(GROUPS, split=NODES, backbone=plain)
    np.testing.assert_allclose(found.predict_proba(GROUPS), plain.predict_proba(GROUPS), atol=1e-5)


def test_the_same_seed_gives_the_same_model() -> None:
    one, two = (GraphClassifier(**{**FAST, "epochs": 2}).fit(RINGS, split=SPLIT) for _ in range(2))
    assert np.array_equal(one.predict_proba(RINGS), two.predict_proba(RINGS))
    other = GraphClassifier(**{**FAST, "epochs": 2, "random_state": 1}).fit(RINGS, split=SPLIT)
    assert not np.array_equal(one.predict_proba(RINGS), other.predict_proba(RINGS))


def test_save_and_load(tmp_path: Path) -> None:
    graphs = GraphClassifier(**{**FAST, "epochs": 2}).fit(RINGS)
    graphs.save(tmp_path / "graphs")
    again = GraphClassifier.load(tmp_path / "graphs")
    assert np.array_equal(again.predict_proba(RINGS), graphs.predict_proba(RINGS))
    assert again.predict(RINGS).tolist() == graphs.predict(RINGS).tolist()
    assert set(again.predict(RINGS)) <= {"halves", "pairs"}
    assert again.get_params() == graphs.get_params()
    assert again.metrics_ == graphs.metrics_
    assert len(again.history_) == len(graphs.history_)
    with pytest.raises(RunError, match="exists already"):
        graphs.save(tmp_path / "graphs")
    with pytest.raises(RunError, match="holds a GraphClassifier"):
        NodeClassifier.load(tmp_path / "graphs")
    nodes = NodeClassifier(epochs=2, random_state=0).fit(GROUPS, split=NODES)
    nodes.save(tmp_path / "nodes")
    assert np.array_equal(NodeClassifier.load(tmp_path / "nodes").predict(GROUPS), nodes.predict(GROUPS))
    assert not list(tmp_path.rglob("*.pkl"))


def test_numbers_of_classes_stay_numbers() -> None:
    """Of PyG's graphs, whose predictions were texts and equal to none of their labels."""
    graphs = [Data(x=one.x, edge_index=one.edge_index, y=one.y) for one in RINGS]
    model = GraphClassifier(**{**FAST, "epochs": 2}).fit(graphs, split=SPLIT)
    y = torch.cat([one.y for one in graphs]).numpy()
    assert model.score(graphs) == (model.predict(graphs) == y).mean() > 0
    assert model.score(replace(GraphSet.from_data_list(graphs), classes=("0", "1"))) == model.score(graphs)


def test_labels_in_place_of_the_sets_own() -> None:
    names = np.where(RINGS.y.numpy() == 1, "b", "a")
    found = GraphClassifier(**{**FAST, "epochs": 2}).fit(list(RINGS), names)
    assert found.classes_.tolist() == ["a", "b"]
    assert clone(found).get_params() == found.get_params()
    assert 0 <= found.score(RINGS, names) <= 1


def test_predicting_before_fitting() -> None:
    for unfitted, what in ((GraphClassifier(), RINGS), (NodeClassifier(), GROUPS)):
        for method in (unfitted.predict, unfitted.predict_proba, unfitted.score):
            with pytest.raises(NotFittedError):
                method(what)


def test_attention_is_drawn() -> None:
    found = GraphClassifier(**{**FAST, "epochs": 2}).fit(RINGS)
    layers, nodes = found.attention(RINGS[:5])
    assert layers.shape == (5, 4)
    assert nodes.reshape(5, 12).sum(1) == pytest.approx(1, abs=1e-5)
    left, right, _ = found.plot_attention(RINGS[0]).axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx(layers[0].tolist(), abs=1e-5)
    assert len(right.collections[0].get_offsets()) == 12
    assert left.get_xlabel() == "layer (0: the input)"
    whole = NodeClassifier(epochs=2).fit(GROUPS, split=NODES)
    left, right, _ = whole.plot_attention(GROUPS).axes
    assert left.get_xlabel() == "layer (1: the first convolution)"
    assert [bar.get_x() + bar.get_width() / 2 for bar in left.patches] == pytest.approx([1, 2])
    assert right.get_title().endswith("the 200 most attended of 300")
    plain = GraphClassifier("gin", **{**FAST, "epochs": 1}).fit(RINGS)
    with pytest.raises(ConfigError, match="no attention to draw"):
        plain.attention(RINGS)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="mode='x'"):
        GraphClassifier(mode="x").fit(RINGS)
    with pytest.raises(ConfigError, match="there is no 'histogramm'"):
        GraphClassifier("histogramm").fit(RINGS)
    with pytest.raises(ConfigError, match="is for tasks on nodes"):
        GraphClassifier("node_gcn").fit(RINGS)
    with pytest.raises(ConfigError, match="splits 3 graphs, there are 160"):
        GraphClassifier().fit(RINGS, split=IndexSplit.of([0], [1], [2], total=3))
    with pytest.raises(DataError, match=r"y has shape \(2,\), must be \(160,\)"):
        GraphClassifier().fit(RINGS, [0, 1])
    found = GraphClassifier(**{**FAST, "epochs": 1}).fit(RINGS)
    with pytest.raises(DataError, match="has 5 node features, fitted were 2"):
        found.predict([Data(x=torch.zeros(2, 5), edge_index=torch.zeros(2, 0).long(), y=torch.tensor([0]))])
    with pytest.raises(ConfigError, match="of another kind or size"):
        GraphClassifier(mode="frozen", **{**FAST, "model_options": {"hidden": 8}}).fit(RINGS, backbone=found)
    with pytest.raises(DataError, match="integer label for each of its 300 nodes"):
        NodeClassifier().fit(Data(x=GROUPS.x, edge_index=GROUPS.edge_index), split=NODES)
