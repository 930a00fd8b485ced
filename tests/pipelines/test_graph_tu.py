"""The two formats of the TU collection."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graph_tools import PATH, POINT, TRIANGLE, graph_lists, tu_text, write
from hypothesis import HealthCheck, given, settings
from torch_geometric.data import Data
from torch_geometric.utils import coalesce

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import EdgePolicy, read_tu_folder, read_tu_text, with_degree_features

AS_LISTED = EdgePolicy(duplicates="keep")


def test_text_format(tmp_path: Path) -> None:
    graphs = read_tu_text(write(tmp_path / "T.txt", tu_text(TRIANGLE, POINT, PATH)))
    assert graphs.sizes.tolist() == [3, 1, 3]
    assert graphs.classes == (0, 1)
    assert graphs.y.tolist() == [1, 0, 0]
    assert graphs[0].x.tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    assert graphs[2].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


def test_one_direction_is_enough_when_read_as_undirected(tmp_path: Path) -> None:
    path = write(tmp_path / "T.txt", tu_text((0, [(0, [1, 1]), (0, [])])))
    assert read_tu_text(path).edge_index.tolist() == [[0, 1], [1, 0]]
    assert read_tu_text(path, policy=AS_LISTED).edge_index.tolist() == [[0, 0], [1, 1]]


def test_features_are_chosen(tmp_path: Path) -> None:
    one_tag = write(tmp_path / "T.txt", tu_text((0, [(0, [1]), (0, [0, 2]), (0, [1])]), POINT))
    assert read_tu_text(one_tag).x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert read_tu_text(one_tag, features="constant").x.tolist() == [[1.0]] * 4
    largest = with_degree_features(read_tu_text(one_tag), largest=1)
    assert largest.x.tolist() == [[0, 1], [0, 1], [0, 1], [1, 0]]
    with pytest.raises(ConfigError, match="features='attributes'"):
        read_tu_text(one_tag, features="attributes")
    numbers = write(tmp_path / "A.txt", "1\n2 0\n0 1 1 0.5 -1\n3 1 0 1.5 2\n")
    assert read_tu_text(numbers).x.tolist() == [[0.5, -1.0, 1.0, 0.0], [1.5, 2.0, 0.0, 1.0]]
    assert read_tu_text(numbers, features="attributes").x.tolist() == [[0.5, -1.0], [1.5, 2.0]]
    assert read_tu_text(numbers, features="degree").x.tolist() == [[1.0], [1.0]]


@given(graph_lists())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_graphs_survive_both_formats(tmp_path: Path, listed: list[Data]) -> None:
    text, lines = [], {"A": [], "graph_indicator": [], "graph_labels": []}  # type: ignore[var-annotated]
    first = 1
    for number, data in enumerate(listed, 1):
        nodes = int(data.num_nodes or 0)
        near = [data.edge_index[1][data.edge_index[0] == i].tolist() for i in range(nodes)]
        text.append((int(data.y), [(0, n) for n in near]))
        lines["A"] += [f"{u + first}, {v + first}" for u, v in data.edge_index.t().tolist()]
        lines["graph_indicator"] += [str(number)] * nodes
        lines["graph_labels"].append(str(int(data.y)))
        first += nodes
    for key, values in lines.items():
        write(tmp_path / "S" / f"S_{key}.txt", "\n".join(values) + "\n" * bool(values))
    from_text = read_tu_text(write(tmp_path / "T.txt", tu_text(*text)), policy=EdgePolicy())
    from_folder = read_tu_folder(tmp_path / "S")
    for i, data in enumerate(listed):
        expected = coalesce(data.edge_index, num_nodes=int(data.num_nodes or 0))
        assert torch.equal(from_text[i].edge_index, expected)
        assert torch.equal(from_folder[i].edge_index, expected)
        assert (
            from_folder.classes[int(from_folder.y[i])]
            == from_text.classes[int(from_text.y[i])]
            == int(data.y)
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n1 0\n0 0\n", "ends after 1 of the 2 graphs that line 1 announces; cut short"),
        ("1\n3 0\n0 0\n0 0\n", "line 2: graph 0 announces 3 nodes, and the file has 2 more lines; cut short"),
        ("1\n2 0\n0 1 1\n0 1 2\n", "line 4: neighbour 2 is missing; graph 0 has the nodes 0 to 1"),
        ("1\n2 0\n0 1 1\n0 1 -1\n", "line 4: neighbour -1 is missing"),
        ("1\n2 0\n0 1 1\n0 2 0\n", "line 4: fewer neighbours than its degree says"),
        ("1\n2 0\n0 1 1 0.5\n0 1 0\n", "line 4: must have 1 attributes"),
        ("1\n1 0\n0 0 nan\n", "line 3: an attribute is not finite"),
        ("1\n1 0\n0 x\n", "line 3: 'x' is not a number"),
        ("1\n1 0 3\n0 0\n", "line 2: graph 0 must begin with"),
        ("1\n1 0\n0 0\n0 0\n", "line 4: goes on after the 1 graphs"),
        ("1\n1 0\n0\n", "line 3: a node needs a tag and a degree"),
        ("1\n1 0\n0 inf\n", "line 3: the degree is not a whole number"),
        ("1\n1 0\n0.5 0\n", "line 3: the tag is not a whole number"),
        ("1\n1 nan\n0 0\n", "line 2: the label is not a whole number"),
        ("1\ninf 0\n0 0\n", "line 2: graph 0 announces inf nodes"),
        ("3 0\n", "line 1: must hold the number of graphs alone"),
        ("", "is empty"),
    ],
)
def test_broken_text_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_tu_text(write(tmp_path / "T.txt", text))
    assert str(caught.value).startswith(str(tmp_path / "T.txt"))
    assert "\n" not in str(caught.value)


def folder(tmp_path: Path, **files: str) -> Path:
    found = {
        "A": "1, 2\n2, 1\n4, 3\n",
        "graph_indicator": "1\n1\n2\n2\n",
        "graph_labels": "1\n-1\n",
        "node_labels": "0\n4\n4\n0\n",
        "node_attributes": "0.5, 1\n1.5, 2\n2.5, 3\n3.5, 4\n",
        "edge_labels": "0\n0\n1\n",
    } | files
    for key, text in found.items():
        if text is not None:
            write(tmp_path / "S" / f"S_{key}.txt", text)
    return tmp_path / "S"


def test_folder_format(tmp_path: Path) -> None:
    graphs = read_tu_folder(folder(tmp_path))
    assert graphs.classes == (-1, 1)
    assert graphs.y.tolist() == [1, 0]
    assert graphs[1].x.tolist() == [[2.5, 3.0, 0.0, 1.0], [3.5, 4.0, 1.0, 0.0]]
    assert graphs[1].edge_index.tolist() == [[1], [0]]
    assert graphs[1].edge_attr.tolist() == [[0.0, 1.0]]


def test_nodes_of_a_graph_need_not_be_neighbours(tmp_path: Path) -> None:
    graphs = read_tu_folder(folder(tmp_path, A="1, 3\n4, 2\n3, 1\n", graph_indicator="1\n2\n1\n2\n"))
    assert graphs[0].x[:, 0].tolist() == [0.5, 2.5]
    assert graphs[0].edge_index.tolist() == [[0, 1], [1, 0]]
    assert graphs[1].edge_index.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"A": "1, 2\n2, 9\n"}, r"S_A.txt: row 2 \(2, 9\) leads to a missing node; nodes are 1 to 4"),
        ({"A": "1, 2\n0, 1\n3, 4\n"}, r"S_A.txt: row 2 \(0, 1\) leads to a missing node"),
        ({"A": "1, 2\n2, 3\n3, 4\n"}, r"S_A.txt: row 2 \(2, 3\) joins nodes of two graphs"),
        ({"A": "1, 2\n2, b\n3, 4\n"}, "S_A.txt: row 2 .* is not a row of finite numbers"),
        ({"graph_indicator": "1\n1\n3\n3\n"}, "S_graph_indicator.txt: row 3 .* must be a graph from 1 to 2"),
        ({"graph_labels": "1\n1\n0\n"}, "S_graph_labels.txt: row 3: graph 3 has no nodes"),
        ({"node_labels": "0\n4\n4\n"}, "S_node_labels.txt: 3 rows for 4"),
        ({"edge_labels": "0\n"}, "S_edge_labels.txt: 1 rows for 3"),
        ({"node_attributes": "1, 2\n1, nan\n1, 2\n1, 2\n"}, "S_node_attributes.txt: row 2"),
    ],
)
def test_a_broken_folder_names_file_and_row(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_tu_folder(folder(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"S_graph_indicator.txt: no such file"):
        read_tu_folder(tmp_path / "S")


def test_graph_attributes_are_targets(tmp_path: Path) -> None:
    path = folder(tmp_path, graph_attributes="0.5\n1.5\n")
    (path / "S_graph_labels.txt").unlink()
    assert read_tu_folder(path).y.tolist() == [[0.5], [1.5]]
