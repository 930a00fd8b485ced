"""What is wrong with a graph, its labels or a setting is said in a line, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError
from graphrec.graph import GraphClassifier, NodeClassifier
from graphrec.graph.batches import GraphBatches
from graphrec.pipelines.graphs import GraphSet, from_pyg, motif_graphs
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.pipelines.recipes import read_recipe
from graphrec.running import check_recipe
from graphrec.training import TrainConfig, Trainer

QUICK: dict[str, Any] = {"model": "gcn", "model_options": {"hidden": 4}, "epochs": 1, "random_state": 0}
RING = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
LABELS = torch.arange(12) % 2


def node_graph(**change: Any) -> Data:
    masks = {f"{part}_mask": torch.arange(12) // 4 == k for k, part in enumerate(("train", "val", "test"))}
    whole = {"x": torch.eye(12), "edge_index": RING, "y": LABELS, **masks, **change}
    return Data(**{key: value for key, value in whole.items() if value is not None})


def with_value(values: torch.Tensor, place: Any, value: Any) -> torch.Tensor:
    copy = values.clone()
    copy[place] = value
    return copy


GRAPH = [
    ({"edge_index": with_value(RING, (1, 3), 12)}, r"edge 3 \(3 -> 12\) leads to a missing node"),
    ({"edge_index": with_value(RING, (0, 2), -1)}, r"edge 2 \(-1 -> 3\) leads to a missing node"),
    (
        {"edge_index": RING.float()},
        r"edge_index should be integers of shape \(2, edges\), found torch.float32",
    ),
    ({"edge_index": RING.T}, r"found torch.int64 of \(12, 2\); transpose it"),
    ({"edge_index": RING.numpy()}, r"edge_index should be a tensor \(2, edges\), found numpy.ndarray"),
    ({"edge_index": None, "adj_t": torch.eye(12).to_sparse()}, "has adj_t and no edge_index"),
    ({"x": with_value(torch.eye(12), (5, 1), float("nan"))}, "a feature of node 5 is not finite"),
    ({"x": np.eye(12)}, "x should be a dense tensor with a row each, found numpy.ndarray"),
    ({"x": torch.eye(12).to_sparse()}, "x should be a dense tensor"),
]


@pytest.mark.parametrize(("change", "message"), GRAPH, ids=[message[:24] for _, message in GRAPH])
def test_a_graph_out_of_order(change: dict[str, Any], message: str) -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    for use in (NodeClassifier(**QUICK).fit, fitted.predict):
        with pytest.raises(DataError, match=message) as caught:
            use(node_graph(**change))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=f"mine: graph 1.*{message}|mine: graph 1: x of width"):
        from_pyg([Data(x=torch.eye(12), edge_index=RING, y=0), Data(**{**bare(), **change})], name="mine")


def bare() -> dict[str, Any]:
    return {"x": torch.eye(12), "edge_index": RING, "y": torch.tensor([0])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "needs an integer label for each of its 12 nodes .* found none"),
        ({"y": with_value(LABELS.float(), 2, float("nan"))}, "found float32"),
        ({"y": LABELS[:, None]}, r"found int64 of \(12, 1\)"),
        ({"y": with_value(LABELS, 2, 10**12)}, "node 2 is of class 1000000000000; classes are numbered"),
        ({"y": with_value(LABELS, 2, -2)}, "node 2 is of class -2; .* from 0 on, -1 is no label"),
        ({"y": with_value(LABELS, 2, -1)}, "split 0: node 2 has no label"),
        (
            {"y": torch.zeros(12, dtype=torch.int64)},
            "all 4 training nodes are of class '0'; a classifier needs",
        ),
        ({"x": torch.ones(10, 12)}, "leads to a missing node"),
    ],
)
def test_labels_of_nodes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        NodeClassifier(**QUICK).fit(node_graph(**change))


def test_a_split_with_a_node_that_labels_given_leave_out() -> None:
    split = IndexSplit.of([0, 1, 2], [3], [4], 12, "mine")
    with pytest.raises(DataError, match="mine: node 2 has no label"):
        NodeClassifier(**QUICK).fit(node_graph(), with_value(LABELS, 2, -1), split=split)


@pytest.mark.parametrize("wrong", [[node_graph()], networkx.path_graph(4), (torch.eye(3), RING), None])
def test_what_is_no_graph(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"should be one torch_geometric.data.Data, found \w+"):
        NodeClassifier(**QUICK).fit(wrong)


def test_features_may_be_of_any_number_type() -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    wanted = fitted.predict_proba(node_graph())
    for x in (torch.eye(12).double(), torch.eye(12).long(), torch.eye(12).bool()):
        assert np.array_equal(fitted.predict_proba(node_graph(x=x)), wanted)


def test_nodes_to_score() -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    assert fitted.score(node_graph(), nodes=[0, 5]) in (0.0, 0.5, 1.0)
    for nodes in ([50], [], [0.5], [True]):
        with pytest.raises(DataError, match="numbers from 0 to 11"):
            fitted.score(node_graph(), nodes=nodes)


def test_a_node_without_a_label_is_no_mistake() -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    with pytest.raises(DataError, match="y: node 8 has no label; leave it out of nodes"):
        fitted.score(node_graph(y=with_value(LABELS, 8, -1)))


def test_masks_of_several_splits_say_not_which_nodes_test() -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    several = node_graph(test_mask=torch.stack([torch.arange(12) > 7] * 3, 1))
    with pytest.raises(DataError, match=r"test_mask: is of 3 splits; give one"):
        fitted.score(several)
    assert fitted.score(several, nodes=several.test_mask[:, 1]) == fitted.score(node_graph())


def test_numbers_with_a_point_are_no_classes() -> None:
    listed = [Data(x=one.x, edge_index=RING, y=one.y.float()) for one in graphs()]
    with pytest.raises(DataError, match=r"its labels are torch.float32 of \(12, 1\), so no classes; give y"):
        GraphClassifier(**QUICK).fit(listed)


def graphs(**change: Any) -> list[Data]:
    """Twelve rings of two classes, the fourth of them changed."""
    listed = [
        Data(x=torch.ones(12, 2) * (i % 2), edge_index=RING, y=torch.tensor([i % 2])) for i in range(12)
    ]
    for key, value in change.items():
        listed[3][key] = value
    return listed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.tensor([float("nan")])}, r"graph 3 has no target \(y is \[nan\]\)"),
        (
            {"y": torch.tensor([0.5])},
            r"graph 3: y is torch.float32 of \(1, 1\), that of graph 0 is torch.int64",
        ),
        ({"y": torch.tensor([10**12])}, "graph 3 is of class 1000000000000; classes are numbered from 0 on"),
        ({"y": None}, "graph 3 has no label"),
        ({"edge_index": RING.T.contiguous()}, "graph 3: edge_index .* transpose it"),
        ({"x": None}, "graph 3: x of width None"),
    ],
)
def test_graphs_out_of_order(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GraphClassifier(**QUICK).fit(graphs(**change))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.fit(graphs(), [0.0, float("nan")] * 6), "y: row 1 has no label"),
        (lambda model: model.fit(graphs(), ["a", None] * 6), "y: row 1 has no label"),
        (lambda model: model.fit(graphs(), np.array(["a", 1] * 6, object)), "several kinds .int, str."),
        (
            lambda model: model.fit(graphs(), ["a"] * 12),
            "training graphs are of class 'a'; a classifier needs",
        ),
        (lambda model: model.fit([]), "holds no graphs"),
        (lambda model: model.fit(None), "should be torch_geometric.data.Data, one or a list, found NoneType"),
        (lambda model: model.fit(graphs()[0]), "found one Data; put it into a list"),
        (lambda model: model.fit([networkx.path_graph(3)]), "graph 0: should be a torch_geometric.data.Data"),
        (lambda model: model.fit([torch.eye(3)]), r"graph 0: .* found a tensor .* of shape \(3, 3\)"),
    ],
)
def test_lists_of_graphs_and_labels(call: Callable[[GraphClassifier], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(GraphClassifier(**QUICK))


def test_what_is_no_split() -> None:
    for split in (0, ([0], [1], [2])):
        with pytest.raises(ConfigError, match=r"split: should be a .*IndexSplit, found"):
            GraphClassifier(**QUICK).fit(graphs(), split=split)  # type: ignore[arg-type]


def test_graphs_to_predict_need_no_labels() -> None:
    fitted = GraphClassifier(**QUICK).fit(graphs())
    unlabelled = [Data(x=one.x, edge_index=one.edge_index) for one in graphs()]
    assert np.array_equal(fitted.predict(unlabelled), fitted.predict(graphs()))
    assert fitted.score(unlabelled, fitted.predict(unlabelled)) == 1.0
    with pytest.raises(DataError, match="graph 0 has no label"):
        fitted.score(unlabelled)


def test_labels_of_another_set_are_no_zero() -> None:
    named = GraphSet.from_data_list(graphs(), classes=["round", "square"], name="rings")
    with pytest.raises(DataError, match=r"graphs: no label is a class .* \(round, square\); found 0, 1"):
        GraphClassifier(**QUICK).fit(named).score(graphs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden=0: must be a whole number from 1 up"),
        ({"hidden": "8"}, "hidden='8': must be"),
        ({"layers": 2.5}, "layers=2.5: must be"),
        ({"dropout": 1.5}, "dropout=1.5: must be a number from 0 to less than 1"),
        ({"embed": "no"}, "embed='no': must be true or false"),
        ({"residual": None}, "residual=None: must be true or false"),
        ({"conv": ["gin"]}, r"conv=\['gin'\]: must be a name"),
        ({"readout_options": "sum"}, "readout_options='sum': must be settings by name, of heads, weights"),
        (
            {"readout": "histograph", "readout_options": {"flor": 1}},
            "readout_options: HISTOGRAPH has no 'flor'; did you mean floor",
        ),
    ],
)
def test_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NodeClassifier(**{**QUICK, "model_options": options}).fit(node_graph())


def test_features_too_large_to_multiply() -> None:
    fitted = NodeClassifier(**QUICK).fit(node_graph())
    for weight in fitted.module_.parameters():
        weight.data.fill_(2.0)
    huge = node_graph(x=with_value(torch.eye(12), 5, 3e38))
    with pytest.raises(DataError, match=r"NodeClassifier: \d+ of 12 rows .* the first is row \d; scale"):
        fitted.predict(huge)


def test_batches_of_many_sizes_are_not_compiled() -> None:
    """Each was compiled anew, a minute of it, and then none was."""
    graphs = motif_graphs(12, nodes=6)
    with pytest.raises(ConfigError, match="compile: every batch holds another number of nodes and edges"):
        GraphClassifier(**QUICK, train_options={"compile": True}).fit(graphs)
    fitted = GraphClassifier(**QUICK).fit(graphs)
    with pytest.raises(ConfigError, match="compile: every batch holds"):
        Trainer(TrainConfig(compile=True)).fit(fitted.module_, GraphBatches(graphs, 4))
    fitted.train_options = {"compile": True}  # as folders of before say
    assert fitted.predict(graphs).shape == (12,)
    with pytest.raises(ConfigError, match="compile: every batch holds another number of tokens"):
        check_recipe(read_recipe("bioie-chemprot", {"training.compile": True}))


def test_weights_to_judge_by() -> None:
    """scikit-learn's complaint named neither the argument nor what was wrong."""
    graphs = motif_graphs(12, nodes=6)
    of_nodes, of_graphs = NodeClassifier(**QUICK).fit(node_graph()), GraphClassifier(**QUICK).fit(graphs)
    for score, data, count in ((of_nodes.score, node_graph(), 4), (of_graphs.score, graphs, 12)):
        assert score(data, sample_weight=list(range(count))) <= 1
        for wrong in (np.ones(count + 1), ["a"] * count):
            with pytest.raises(DataError, match=f"sample_weight: must be {count} numbers, one for each"):
                score(data, sample_weight=wrong)
        for number in (0, np.inf, np.nan, -1):
            with pytest.raises(DataError, match="sample_weight: must be finite numbers from 0 up"):
                score(data, sample_weight=np.full(count, number))


def test_graphs_of_nothing() -> None:
    graphs = motif_graphs(12, nodes=6)
    with pytest.raises(DataError, match="trees with motifs: there are no graphs to judge"):
        GraphClassifier(**QUICK).fit(graphs).score(graphs[[]])
    with pytest.raises(DataError, match="x: has no columns; leave it out, and every node has a 1"):
        NodeClassifier(**QUICK).fit(node_graph(x=torch.zeros(12, 0)))
    with pytest.raises(DataError, match="x: has no columns"):
        GraphClassifier(**QUICK).fit(
            [Data(x=one.x[:, :0], edge_index=one.edge_index, y=one.y) for one in graphs]
        )
