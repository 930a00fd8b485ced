"""Hypergraphs from tables, arrays, lists and graphs, and LightHGNN's two protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from graph_tools import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError, SchemaError
from graphrec.pipelines.hypergraphs import (
    Hypergraph,
    from_edge_lists,
    from_graph,
    production_split,
    read_hypergraph_npz,
    read_incidence,
    transductive_split,
)

edge_lists = st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=6)


def make(edges: list[list[int]], **options: Any) -> Hypergraph:
    return from_edge_lists(torch.arange(6.0)[:, None], edges, torch.tensor([0, 1, 0, 1, 2, 2]), **options)


@given(edge_lists)
@settings(max_examples=80)
def test_lists_there_and_back(edges: list[list[int]]) -> None:
    graph = make(edges)
    assert graph.edge_lists() == [sorted(set(e)) for e in edges]
    assert graph.edge_sizes.tolist() == [len(set(e)) for e in edges]
    again = Hypergraph.from_pyg(graph.to_pyg())
    assert torch.equal(again.incidence, graph.incidence)
    assert again.num_edges == graph.num_edges
    full = graph.with_singletons()
    assert int(full.vertex_degrees.min()) >= 1
    alone = int((graph.vertex_degrees == 0).sum())
    assert full.num_edges == graph.num_edges + alone
    assert full.edge_sizes[graph.num_edges :].tolist() == [1] * alone
    assert int(graph.without_empty_edges().num_edges) == sum(bool(e) for e in edges)


@given(edge_lists, st.sets(st.integers(0, 5), min_size=1))
@settings(max_examples=60)
def test_removed_vertices_take_their_incidences_with_them(edges: list[list[int]], kept: set[int]) -> None:
    order = sorted(kept)
    smaller = make(edges).keep_vertices(order)
    expected = [[order.index(v) for v in sorted(set(e) & kept)] for e in edges]
    assert smaller.edge_lists() == [e for e in expected if e]
    assert smaller.x.flatten().tolist() == [float(v) for v in order]
    mask = torch.zeros(6, dtype=torch.bool)
    mask[order] = True
    assert torch.equal(make(edges).keep_vertices(mask).incidence, smaller.incidence)


@given(graphs())
@settings(max_examples=60)
def test_neighbourhoods_of_any_graph(data: Data) -> None:
    nodes = int(data.num_nodes or 0)
    near = {(u, v) for a, b in data.edge_index.t().tolist() for u, v in ((a, b), (b, a)) if u != v}
    around = [sorted({i} | {v for u, v in near if u == i}) for i in range(nodes)]
    data.y = None
    assert from_graph(data, pairs=False).edge_lists() == around
    pairs = sorted([u, v] for u, v in near if u < v)
    assert from_graph(data).edge_lists() == pairs + around


def test_weights_travel() -> None:
    graph = Hypergraph(
        torch.ones(3, 1),
        torch.tensor([[2, 0, 1], [1, 0, 0]]),
        2,
        None,
        torch.tensor([3.0, 1.0, 2.0]),
        torch.tensor([5.0, 6.0]),
    )
    assert graph.incidence.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert graph.weight.tolist() == [1.0, 2.0, 3.0]
    smaller = graph.keep_vertices([2])
    assert smaller.weight.tolist() == [3.0]
    assert smaller.edge_weight.tolist() == [6.0]
    assert (
        make([[0]], edge_weight=torch.tensor([2.0])).with_singletons().edge_weight.tolist()
        == [2.0] + [1.0] * 5
    )
    assert graph.to_pyg().incidence_weight.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("incidence", "edges", "message"),
    [
        ([[0, 3], [0, 0]], 1, "incidence 1: vertex 3 is missing; there are 3"),
        ([[0, -1], [0, 0]], 1, "incidence 1: vertex -1 is missing"),
        ([[0, 1], [0, 2]], 2, "incidence 1: hyperedge 2 is missing; there are 2"),
        ([[1, 0, 1], [0, 0, 0]], 1, "vertex 1 is in hyperedge 0 twice"),
    ],
)
def test_incidences_that_cannot_be_are_refused(incidence: list, edges: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Hypergraph(torch.ones(3, 1), torch.tensor(incidence), edges)


def test_other_parts_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="hyperedge 1 holds vertex 9; vertices are 0 to 5"):
        make([[0], [9]])
    for wrong, message in (
        ([[0.5, 1]], "hyperedge 0 holds 0.5, which is no vertex's number"),
        ([[0], 1], "hyperedge 1 should be a list of vertices, found 1"),
        (["ab"], "hyperedge 0 should be a list of vertices, found 'ab'"),
    ):
        with pytest.raises(DataError, match=message):
            make(wrong)
    with pytest.raises(DataError, match="y has 2 values for 3 vertices"):
        Hypergraph(torch.ones(3, 1), torch.zeros(2, 0, dtype=torch.int64), 0, torch.tensor([0, 1]))
    with pytest.raises(DataError, match="x of row 1 is not finite"):
        Hypergraph(torch.tensor([[1.0], [float("nan")]]), torch.zeros(2, 0, dtype=torch.int64), 0)


VERTICES = pl.DataFrame({"vertex": ["p", "q", "r"], "f": [1.0, 2.0, 3.0], "label": ["x", "y", "x"]})
INCIDENCE = pl.DataFrame({"vertex": ["q", "p", "q"], "edge": [7, 3, 3], "w": [0.5, 1.0, 1.5]})


@pytest.mark.parametrize("extension", ["parquet", "csv"])
def test_incidence_tables(tmp_path: Path, extension: str) -> None:
    for name, frame in (("v", VERTICES), ("i", INCIDENCE)):
        getattr(frame, f"write_{extension}")(tmp_path / f"{name}.{extension}")
    graph = read_incidence(tmp_path / f"i.{extension}", tmp_path / f"v.{extension}", weight="w")
    assert graph.edge_lists() == [[1], [0, 1]]
    assert graph.weight.tolist() == [0.5, 1.0, 1.5]
    assert graph.y.tolist() == [0, 1, 0]
    assert graph.classes == ("x", "y")
    assert graph.vertex_degrees.tolist() == [1, 2, 0]


def test_no_incidences_at_all() -> None:
    graph = read_incidence(INCIDENCE.head(0), VERTICES, weight="w")
    assert graph.num_edges == 0
    assert graph.with_singletons().edge_lists() == [[0], [1], [2]]


def test_hyperedges_may_be_listed_and_empty() -> None:
    edges = pl.DataFrame({"edge": [1, 3, 7], "weight": [1.0, 2.0, 3.0]})
    graph = read_incidence(INCIDENCE, VERTICES, edges=edges, edge_weight="weight", label=None, features=["f"])
    assert graph.edge_lists() == [[], [0, 1], [1]]
    assert graph.edge_weight.tolist() == [1.0, 2.0, 3.0]
    assert graph.y is None
    with pytest.raises(
        DataError, match=r"incidence: row 1: column 'edge' names a hyperedge that edges does not have \(7\)"
    ):
        read_incidence(INCIDENCE, VERTICES, edges=edges.head(2))


@pytest.mark.parametrize(
    ("incidence", "vertices", "message"),
    [
        (
            INCIDENCE.with_columns(vertex=pl.Series(["q", "z", "q"])),
            VERTICES,
            r"incidence: row 2: .* vertices does not have \('z'\)",
        ),
        (
            INCIDENCE.with_columns(edge=pl.Series([7, -3, 3])),
            VERTICES,
            r"incidence: row 2: column 'edge' holds a negative id \(-3\)",
        ),
        (
            pl.concat([INCIDENCE, INCIDENCE.head(1)]),
            VERTICES,
            "incidence: row 4: an earlier row says the same",
        ),
        (
            INCIDENCE,
            VERTICES.with_columns(label=pl.Series(["x", None, "x"])),
            "vertices: row 2: column 'label' has no label",
        ),
        (
            INCIDENCE,
            VERTICES.with_columns(f=pl.Series([1.0, 2.0, float("nan")])),
            "vertices: row 3: column 'f' is null, NaN",
        ),
        (
            INCIDENCE,
            pl.concat([VERTICES, VERTICES.head(1)]),
            "vertices: row 4: this vertex has an earlier row",
        ),
        (
            INCIDENCE.rename({"edge": "edges"}),
            VERTICES,
            "incidence: column 'edge' is missing; did you mean 'edges'",
        ),
    ],
)
def test_what_is_wrong_names_table_and_row(
    incidence: pl.DataFrame, vertices: pl.DataFrame, message: str
) -> None:
    with pytest.raises((DataError, SchemaError), match=message):
        read_incidence(incidence, vertices)


def npz(path: Path, **change: Any) -> Path:
    arrays = {
        "x_data": np.array([1.0, 2.0], np.float32),
        "x_indices": np.array([1, 0]),
        "x_indptr": np.array([0, 1, 2, 2]),
        "x_shape": np.array([3, 2]),
        "labels": np.array([0, 1, 0]),
        "edge_ptr": np.array([0, 2, 2]),
        "edge_idx": np.array([2, 0]),
    } | change
    np.savez(path, **arrays)
    return path


def test_arrays(tmp_path: Path) -> None:
    graph = read_hypergraph_npz(npz(tmp_path / "h.npz"))
    assert graph.x.tolist() == [[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]
    assert graph.edge_lists() == [[0, 2], []]
    assert graph.classes == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_idx": np.array([2, 3])}, "edge_idx: row 2: vertex 3 is missing; there are 3"),
        ({"edge_ptr": np.array([0, 2, 1])}, "edge_ptr must rise from 0 to 2"),
        ({"labels": np.array([0, 1])}, "labels must be 3 classes"),
        ({"labels": np.array([0, 1, -1])}, "labels must be 3 classes from 0 up"),
        ({"edge_idx": np.array([2.0, 0.5])}, "edge_idx is float64"),
        ({"x_indices": np.array([1, 2])}, "x: a column is outside 0 to 1"),
        ({"x_indptr": np.array([0, 1, 2])}, "x: its row pointers do not fit 3 rows"),
    ],
)
def test_broken_arrays_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_hypergraph_npz(npz(tmp_path / "h.npz", **change))


def population() -> Hypergraph:
    rng = np.random.default_rng(0)
    labels = torch.tensor([0, 1, 2] * 40)
    edges = [rng.choice(120, size=rng.integers(1, 6), replace=False).tolist() for _ in range(60)]
    return from_edge_lists(torch.randn(120, 3), edges, labels).with_singletons()


def test_transductive_protocol() -> None:
    graph = population()
    split = transductive_split(graph, train=4, valid=10, seed=2)
    assert torch.bincount(graph.y[split.train]).tolist() == [4, 4, 4]
    assert torch.bincount(graph.y[split.valid]).tolist() == [10, 10, 10]
    assert len(split.test) == 120 - 42
    with pytest.raises(ConfigError, match="has no labels"):
        transductive_split(from_edge_lists(torch.ones(2, 1), [[0, 1]]))


def test_production_protocol_hides_vertices_and_their_incidences() -> None:
    graph = population()
    found = production_split(graph, train=4, valid=10, unseen=0.5, seed=2)
    assert len(found.inductive) == len(found.transductive) == 39
    assert sorted([*found.inductive.tolist(), *found.transductive.tolist()]) == sorted(
        found.split.test.tolist()
    )
    observed = found.observed
    assert torch.equal(observed.x, graph.x[found.kept])
    for part in ("train", "valid"):
        assert torch.equal(found.kept[getattr(found.observed_split, part)], getattr(found.split, part))
    assert torch.equal(found.kept[found.observed_split.test], found.transductive)
    hidden = set(found.inductive.tolist())
    seen = [[v for v in e if v not in hidden] for e in graph.edge_lists()]
    lists = [[int(found.kept[v]) for v in e] for e in observed.edge_lists()]
    assert lists[: len([e for e in seen if e])] == [e for e in seen if e]
    assert int(observed.vertex_degrees.min()) >= 1
    with pytest.raises(ConfigError, match="unseen=1"):
        production_split(graph, unseen=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [[1.0]]}, "x should be a tensor, found list"),
        ({"incidence": torch.zeros(2, 1)}, "incidence should be whole numbers, found torch.float32"),
        ({"y": torch.tensor([0.0, 1.0])}, "y should be whole numbers, found torch.float32"),
        ({"y": torch.tensor([[0], [1]])}, r"y should be of shape \(vertices,\), found \(2, 1\)"),
        ({"y": torch.tensor([0, 7])}, "vertex 1 is of class 7, and classes names 2"),
        (
            {"x": torch.ones(2, 1, dtype=torch.complex64)},
            "x should be dense real numbers, found torch.complex64",
        ),
        ({"x": torch.ones(2, 1).to_sparse()}, "x should be dense real numbers"),
        ({"num_edges": 1.5}, "num_edges should be a whole number, found 1.5"),
        ({"classes": ("a", "a")}, "classes should be different texts"),
    ],
)
def test_types_that_cannot_be_right(change: dict[str, Any], message: str) -> None:
    whole = {"x": torch.ones(2, 1), "incidence": torch.zeros(2, 1, dtype=torch.int64), "num_edges": 1}
    with pytest.raises(DataError, match=f"mine: {message}"):
        Hypergraph(**{**whole, "classes": ("a", "b"), "name": "mine", **change})


@pytest.mark.parametrize("kept", [[9], [-1], [0, 0], [0.5], torch.tensor([True, False])])
def test_vertices_that_cannot_be_kept(kept: Any) -> None:
    """A mask too short kept other vertices, -1 the last one."""
    with pytest.raises(DataError, match="kept should be a mask of all 6 vertices, or different"):
        make([[0, 1, 2]]).keep_vertices(kept)


def test_columns_that_would_be_letters_or_nothing() -> None:
    with pytest.raises(ConfigError, match=r"features='f': must be a list of columns, such as \['f'\]"):
        read_incidence(INCIDENCE, VERTICES, features="f")
    with pytest.raises(ConfigError, match="edge_weight='w': is a column of edges; give edges as well"):
        read_incidence(INCIDENCE, VERTICES, edge_weight="w")
