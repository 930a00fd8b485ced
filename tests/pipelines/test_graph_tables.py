"""Graphs from tables of nodes, edges and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from graphrec.errors import DataError, SchemaError
from graphrec.pipelines.graphs import EdgePolicy, GraphSet, node_split, read_graph, read_graphs

NODES = pl.DataFrame(
    {
        "graph": ["b", "a", "b", "a", "c"],
        "node": [1, 7, 0, 3, 0],
        "f": [1.0, 2.0, 3.0, 4.0, 5.0],
        "g": [[1, 0], [0, 1], [1, 1], [0, 0], [2, 2]],
    }
)
EDGES = pl.DataFrame(
    {"graph": ["a", "b", "a"], "source": [7, 0, 3], "target": [3, 1, 7], "w": [0.5, 1.5, 2.5]}
)
LABELS = pl.DataFrame({"graph": ["a", "b", "c"], "label": ["no", "yes", "no"]})


def read(nodes: Any = NODES, edges: Any = EDGES, labels: Any = LABELS, **options: Any) -> GraphSet:
    return read_graphs(nodes, edges, labels, **options)


def test_graphs_come_in_the_order_of_their_labels() -> None:
    graphs = read()
    assert graphs.sizes.tolist() == [2, 2, 1]
    assert graphs.classes == ("no", "yes")
    assert graphs.y.tolist() == [0, 1, 0]
    assert graphs[0].x.tolist() == [[2.0, 0.0, 1.0], [4.0, 0.0, 0.0]]
    assert graphs[0].edge_index.tolist() == [[0, 1], [1, 0]]
    assert graphs[0].edge_attr.tolist() == [[0.5], [2.5]]
    assert graphs[1].edge_index.tolist() == [[1], [0]]
    assert graphs[2].edge_index.shape == (2, 0)


@pytest.mark.parametrize("given", [[3, 1, 3], [True, False, True], [3.0, 1.0, 3.0], ["3", "1", "3"]])
def test_classes_are_what_the_labels_are(given: list[Any]) -> None:
    graphs = read(labels=LABELS.with_columns(label=pl.Series(given)))
    assert graphs.classes == (given[1], given[0])
    assert {type(one) for one in graphs.classes} == {int if type(given[0]) is float else type(given[0])}


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_files_give_the_same(tmp_path: Path, extension: str) -> None:
    for name, frame in (("nodes", NODES.drop("g")), ("edges", EDGES), ("labels", LABELS)):
        getattr(frame, f"write_{extension}")(tmp_path / f"{name}.{extension}")
    files = [tmp_path / f"{name}.{extension}" for name in ("nodes", "edges", "labels")]
    from_files, from_memory = read(*files), read(NODES.drop("g"))
    for key in ("x", "edge_index", "y", "node_ptr", "edge_ptr", "edge_attr"):
        assert torch.equal(getattr(from_files, key), getattr(from_memory, key))


def test_policies_and_columns_are_chosen() -> None:
    graphs = read(features=["f"], edge_features=[], policy=EdgePolicy(undirected=True))
    assert graphs.num_features == 1
    assert graphs.edge_attr is None
    assert graphs[1].edge_index.tolist() == [[0, 1], [1, 0]]
    assert read(features=[]).x.unique().tolist() == [1.0]
    assert read(edges=None).edge_index.shape == (2, 0)
    assert read(edges=EDGES.head(0)).edge_index.shape == (2, 0)


def test_regression_takes_several_targets() -> None:
    labels = pl.DataFrame({"graph": ["a", "b", "c"], "u": [0.5, 1.0, 2.0], "v": [1, 2, 3]})
    graphs = read(labels=labels, label=["u", "v"], task="regression")
    assert graphs.y.tolist() == [[0.5, 1.0], [1.0, 2.0], [2.0, 3.0]]
    assert graphs.num_classes == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"edges": EDGES.with_columns(target=pl.Series([3, 1, 9]))},
            r"edges: row 3: column 'target' names a node .* \(9\)",
        ),
        (
            {"edges": EDGES.with_columns(graph=pl.Series(["a", "z", "a"]))},
            "edges: row 2: its graph has no label",
        ),
        (
            {"edges": EDGES.with_columns(source=pl.Series([7, -1, 3]))},
            "edges: row 2: column 'source' holds a negative id",
        ),
        (
            {"edges": EDGES.with_columns(w=pl.Series([1.0, float("inf"), 0.0]))},
            "edges: row 2: column 'w' is null, NaN",
        ),
        ({"edges": EDGES.drop("target")}, "edges: column 'target' is missing; it has"),
        (
            {"nodes": NODES.with_columns(f=pl.Series([1.0, None, 3.0, 4.0, 5.0]))},
            "nodes: row 2: column 'f' is null, NaN",
        ),
        (
            {"nodes": NODES.with_columns(node=pl.Series([1, 7, 0, 7, 0]))},
            "nodes: row 4: this node has an earlier row",
        ),
        (
            {"nodes": NODES.with_columns(node=pl.Series([1, 7, 0, -3, 0]))},
            "nodes: row 4: column 'node' holds a negative",
        ),
        (
            {"nodes": NODES.with_columns(g=pl.Series([[1], [1, 2], [1, 2], [1, 2], [1, 2]]))},
            "nodes: row 1: .* not 2 long",
        ),
        (
            {"nodes": NODES.with_columns(graph=pl.Series(["b", "a", "b", "a", "d"]))},
            "nodes: row 5: its graph has no label",
        ),
        ({"nodes": NODES.head(4)}, r"labels: row 3: the graph has no nodes \('c'\)"),
        (
            {"labels": LABELS.with_columns(label=pl.Series(["no", None, "no"]))},
            "labels: row 2: column 'label' has no label",
        ),
        (
            {"labels": pl.concat([LABELS, LABELS])},
            r"labels: row 4 \(and 2 more rows\): this graph has an earlier row",
        ),
        ({"labels": LABELS.rename({"label": "labels"})}, r"labels: column 'label' .* did you mean 'labels'"),
        ({"labels": LABELS.with_columns(label=pl.Series([0.5, 1.0, 1.0]))}, "classes must be whole numbers"),
    ],
)
def test_what_is_wrong_names_table_and_row(change: dict[str, pl.DataFrame], message: str) -> None:
    with pytest.raises((DataError, SchemaError), match=message) as caught:
        read(**change)
    assert "\n" not in str(caught.value)


CITED = pl.DataFrame(
    {
        "node": ["p", "q", "r", "s"],
        "words": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]],
        "label": [2, 0, 2, None],
        "part": ["train", "valid", "test", None],
    }
)
CITES = pl.DataFrame({"source": ["p", "q", "p", "r"], "target": ["q", "p", "q", "r"]})


def test_one_graph_with_masks() -> None:
    data = read_graph(CITED, CITES, split="part", unlabelled=True, policy=EdgePolicy(undirected=True))
    assert data.y.tolist() == [1, 0, 1, -1]
    assert data.classes == [0, 2]
    assert data.edge_index.tolist() == [[0, 1, 2], [1, 0, 2]]
    split = node_split(data)
    assert (split.train.tolist(), split.valid.tolist(), split.test.tolist()) == ([0], [1], [2])
    assert split.left_out.tolist() == [3]
    with pytest.raises(DataError, match="nodes: row 4: column 'label' has no label"):
        read_graph(CITED, CITES, split="part")


def test_labels_may_lie_in_a_table_of_their_own() -> None:
    labels = pl.DataFrame({"node": ["r", "p"], "label": ["x", "y"]})
    nodes = CITED.select("node", "words")
    data = read_graph(nodes, CITES, labels, unlabelled=True)
    assert data.y.tolist() == [1, -1, 0, -1]
    with pytest.raises(
        DataError, match=r"nodes: row 2 \(and 1 more rows\): the node has no label in labels \('q'\)"
    ):
        read_graph(nodes, CITES, labels)
    with pytest.raises(DataError, match="labels: row 1: the node is not in nodes"):
        read_graph(nodes, CITES, labels.with_columns(node=pl.Series(["z", "p"])), unlabelled=True)


def test_a_split_with_another_word_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 2: column 'part' is not train, valid, test or empty \('val'\)"):
        read_graph(
            CITED.with_columns(part=pl.Series(["train", "val", "test", ""])),
            CITES,
            split="part",
            unlabelled=True,
        )


def test_a_single_node_without_edges() -> None:
    data = read_graph(pl.DataFrame({"node": [0]}), None, label=None)
    assert data.x.tolist() == [[1.0]]
    assert data.edge_index.shape == (2, 0)
