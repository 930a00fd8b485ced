"""To and from networkx and DGL."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import torch
from graph_tools import graphs
from hypothesis import given, settings
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError, MissingExtraError
from graphrec.pipelines.graphs import (
    UNDIRECTED,
    from_dgl,
    from_networkx,
    from_pyg,
    to_dgl,
    to_networkx,
)


@given(graphs())
@settings(max_examples=40)
def test_networkx_there_and_back(data: Data) -> None:
    simple = from_pyg(Data(x=data.x, edge_index=torch.unique(data.edge_index, dim=1)))
    there = to_networkx(simple)
    back = from_networkx(there, features=["x"])
    assert there.number_of_nodes() == simple.num_nodes
    assert torch.equal(back.x, simple.x)
    assert torch.equal(torch.unique(back.edge_index, dim=1), simple.edge_index)


def path_graph() -> nx.Graph:
    graph = nx.Graph()
    graph.add_node("p", x=[1.0, 2.0], colour=1)
    graph.add_node("q", x=[3.0, 4.0], colour=0)
    graph.add_edge("p", "q", w=0.5)
    graph.add_edge("q", "q", w=2.0)
    return graph


def test_an_undirected_graph_gives_both_directions() -> None:
    data = from_networkx(path_graph(), features=["x"], edge_features=["w"], label="colour")
    assert data.x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert data.edge_index.tolist() == [[0, 1, 1], [1, 1, 0]]
    assert data.edge_attr.flatten().tolist() == [0.5, 2.0, 0.5]
    assert data.y.tolist() == [1, 0]
    directed = from_networkx(nx.DiGraph([(0, 1), (2, 1)]))
    assert directed.edge_index.tolist() == [[0, 2], [1, 1]]
    multi = from_networkx(nx.MultiDiGraph([(0, 1), (0, 1)]))
    assert multi.edge_index.shape == (2, 2)
    assert from_networkx(nx.MultiDiGraph([(0, 1), (0, 1)]), policy=UNDIRECTED).edge_index.tolist() == [
        [0, 1],
        [1, 0],
    ]


def test_several_graphs_need_labels() -> None:
    found = from_networkx([nx.path_graph(3), nx.empty_graph(1)], [0, 1], classes=["path", "point"])
    assert found.sizes.tolist() == [3, 1]
    assert found.classes == ("path", "point")
    assert from_networkx([nx.path_graph(3)], [0.5]).y.tolist() == [[0.5]]
    with pytest.raises(ConfigError, match="labels: 1 graphs need as many labels, got none"):
        from_networkx([nx.path_graph(3)])


def test_a_missing_attribute_names_its_node() -> None:
    graph = path_graph()
    del graph.nodes["q"]["x"]
    with pytest.raises(DataError, match="graph: node 'q' has no attribute 'x'; it has colour"):
        from_networkx(graph, features=["x"])
    graph.nodes["q"]["x"] = "far"
    with pytest.raises(DataError, match="node 'q': attribute 'x' is 'far', not a number"):
        from_networkx(graph, features=["x"])
    with pytest.raises(DataError, match="edge 'p' -> 'q' has no attribute 'v'; it has w"):
        from_networkx(path_graph(), edge_features=["v"])


class FakeDGL:
    """The part of a DGLGraph that is read, for where DGL is not installed."""

    def __init__(
        self, ends: list[list[int]], ndata: dict[str, torch.Tensor], edata: dict[str, torch.Tensor]
    ) -> None:
        self._ends, self.ndata, self.edata = torch.tensor(ends, dtype=torch.int32), ndata, edata
        self.ntypes, self.etypes = ["_N"], ["_E"]

    def edges(self, order: str) -> tuple[torch.Tensor, torch.Tensor]:
        assert order == "eid"
        return self._ends[0], self._ends[1]

    def num_nodes(self) -> int:
        return 3


def fake(**ndata: torch.Tensor) -> Any:
    return FakeDGL([[0, 2], [1, 0]], ndata, {"w": torch.tensor([[1.0], [2.0]])})


def test_a_dgl_graph_is_read() -> None:
    graph = fake(feat=torch.ones(3, 2), label=torch.tensor([0, 1, 0]), train_mask=torch.tensor([1, 0, 0]))
    data = from_dgl(graph, edge_features="w")
    assert data.edge_index.tolist() == [[0, 2], [1, 0]]
    assert data.edge_attr.flatten().tolist() == [1.0, 2.0]
    assert data.y.tolist() == [0, 1, 0]
    assert data.train_mask.tolist() == [True, False, False]
    assert from_dgl([fake(), fake()], [0, 1]).sizes.tolist() == [3, 3]
    with pytest.raises(DataError, match="edata has no 'z'; it has w"):
        from_dgl(fake(), edge_features="z")
    graph.etypes = ["a", "b"]
    with pytest.raises(DataError, match="several kinds of nodes or edges"):
        from_dgl(graph)
    with pytest.raises(ConfigError, match="labels: 1 graphs need"):
        from_dgl([graph])


def test_without_dgl_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dgl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphrec\[dgl\]'"):
        to_dgl(Data(x=torch.ones(1, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64)))


def test_dgl_there_and_back() -> None:
    pytest.importorskip("dgl")
    data = Data(
        x=torch.randn(3, 2),
        edge_index=torch.tensor([[0, 2, 0], [1, 0, 1]]),
        y=torch.tensor([0, 1, 1]),
        edge_attr=torch.randn(3, 1),
        train_mask=torch.tensor([True, False, False]),
    )
    back = from_dgl(to_dgl(data), edge_features="feat")
    for key in ("x", "edge_index", "y", "edge_attr", "train_mask"):
        assert torch.equal(back[key], data[key])
    listed, labels = to_dgl(from_pyg([Data(x=data.x, edge_index=data.edge_index, y=torch.tensor([1]))]))
    assert from_dgl(listed, labels, classes=["a", "b"]).y.tolist() == [1]
