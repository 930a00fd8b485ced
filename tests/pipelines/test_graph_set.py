"""GraphSet: batches and selections equal PyG's, odd graphs included, and nothing wrong gets in."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from graph_tools import graph_lists
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import FakeDataset
from torch_geometric.loader import DataLoader

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import GraphSet, from_pyg

KEYS = ("x", "edge_index", "y", "batch", "ptr")


@given(graph_lists(), st.data())
@settings(max_examples=60)
def test_a_batch_equals_that_of_pyg(listed: list[Data], draws: st.DataObject) -> None:
    graphs = from_pyg(listed, classes=["a", "b", "c"])
    index = draws.draw(st.lists(st.integers(0, len(listed) - 1), min_size=1, max_size=6))
    ours, theirs = graphs.batch(index), Batch.from_data_list([listed[i] for i in index])
    for key in KEYS:
        assert torch.equal(ours[key], theirs[key]), key
    assert ours.num_graphs == len(index)
    for mine, given_graph in zip(ours.to_data_list(), (listed[i] for i in index), strict=True):
        assert torch.equal(mine.edge_index, given_graph.edge_index)
        assert torch.equal(mine.x, given_graph.x)


@given(graph_lists())
@settings(max_examples=40)
def test_there_and_back(listed: list[Data]) -> None:
    graphs = from_pyg(listed, classes=["a", "b", "c"])
    again = from_pyg(list(graphs), classes=["a", "b", "c"])
    for key in ("x", "edge_index", "node_ptr", "edge_ptr", "y"):
        assert torch.equal(getattr(graphs, key), getattr(again, key))
    reversed_set = graphs[list(range(len(graphs) - 1, -1, -1))]
    assert torch.equal(reversed_set[0].x, listed[-1].x)
    assert len(graphs[:0]) == 0


def example(edge_attr: bool = True) -> GraphSet:
    generator = torch.Generator().manual_seed(0)
    listed = []
    for i in range(10):
        n = i % 3 + 1
        data = Data(
            x=torch.randn(n, 4, generator=generator), edge_index=torch.tensor([[0, n - 1], [n - 1, 0]])
        )
        data.y = torch.tensor([i % 2])
        if edge_attr:
            data.edge_attr = torch.randn(2, 3, generator=generator)
        listed.append(data)
    return from_pyg(listed)


def test_edge_features_travel() -> None:
    graphs = example()
    batch = graphs.batch([4, 0])
    assert torch.equal(batch.edge_attr, torch.cat([graphs[4].edge_attr, graphs[0].edge_attr]))
    assert torch.equal(batch[1].edge_attr, graphs[0].edge_attr)
    assert graphs.num_edge_features == 3
    assert graphs.num_classes == 2


def test_pygs_own_loader_takes_a_set() -> None:
    graphs = example()
    theirs = list(DataLoader(graphs, batch_size=4))  # type: ignore[arg-type]
    ours = list(graphs.loader(4))
    assert [b.num_graphs for b in ours] == [b.num_graphs for b in theirs] == [4, 4, 2]
    assert all(torch.equal(a.edge_attr, b.edge_attr) for a, b in zip(ours, theirs, strict=True))


def test_a_pass_shuffles_anew_and_repeats_with_its_seed() -> None:
    graphs = example()
    first, second = graphs.loader(10, shuffle=True, seed=3), graphs.loader(10, shuffle=True, seed=3)
    one, two = next(iter(first)).x, next(iter(first)).x
    assert not torch.equal(one, two)
    assert torch.equal(one, next(iter(second)).x)
    assert len(graphs.loader(4, drop_last=True)) == len(list(graphs.loader(4, drop_last=True))) == 2
    with pytest.raises(ConfigError, match="batch_size=0"):
        graphs.loader(0)


def test_a_mask_selects() -> None:
    graphs = example()
    mask = graphs.y == 1
    assert len(graphs[mask]) == 5
    assert graphs[mask].y.tolist() == [1] * 5
    with pytest.raises(IndexError, match="mask of shape"):
        graphs.select(mask[:-1])
    with pytest.raises(IndexError):
        graphs[10]


def one(**change: object) -> Data:
    return Data(
        **{"x": torch.ones(2, 1), "edge_index": torch.tensor([[0], [1]]), "y": torch.tensor([0])} | change
    )


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            one(edge_index=torch.tensor([[0], [2]])),
            r"mine: graph 1: edge 0 \(0 -> 2\) leads to a missing node",
        ),
        (one(edge_index=torch.tensor([[-1], [1]])), r"mine: graph 1: edge 0 \(-1 -> 1\)"),
        (one(x=torch.tensor([[1.0], [float("nan")]])), "mine: graph 1: a feature of node 1 is not finite"),
        (one(edge_attr=torch.tensor([[1.0]])), "mine: graph 1: edge_attr of width"),
        (one(x=torch.ones(2, 3)), "mine: graph 1: x of width"),
        (one(y=None), "mine: graph 1 has no label"),
        (one(y=torch.tensor([-1])), "mine: graph 1 has no class"),
        (one(y=torch.tensor([0, 1])), "mine: graph 1 has 2 classes"),
        (one(y="benzene"), "mine: graph 1: y should be a number, found 'benzene'; number the classes"),
        (one(x=torch.ones(2, 1, dtype=torch.complex64)), "mine: graph 1: x should be of real numbers"),
        (one(y=torch.tensor([7])), None),
    ],
)
def test_what_is_wrong_names_the_graph(graph: Data, message: str | None) -> None:
    if message is None:
        with pytest.raises(DataError, match="class 7, and classes names 2"):
            from_pyg([one(), graph], classes=["a", "b"])
        return
    with pytest.raises(DataError, match=message) as caught:
        from_pyg([one(), graph], name="mine")
    assert "\n" not in str(caught.value)


def test_targets_may_be_numbers() -> None:
    graphs = from_pyg([one(y=torch.tensor([0.5, 2.0])), one(y=torch.tensor([1.5, 3.0]))])
    assert graphs.y.tolist() == [[0.5, 2.0], [1.5, 3.0]]
    assert graphs.batch().y.shape == (2, 2)
    with pytest.raises(DataError, match="graph 1 has no target"):
        from_pyg([one(y=torch.tensor([0.5])), one(y=torch.tensor([float("nan")]))])


def test_a_graph_for_node_tasks_is_checked() -> None:
    data = from_pyg(one(x=None, num_nodes=2, train_mask=torch.tensor([True, False])))
    assert data.x.tolist() == [[1.0], [1.0]]
    assert data.train_mask.tolist() == [True, False]
    with pytest.raises(DataError, match="leads to a missing node"):
        from_pyg(one(edge_index=torch.tensor([[0], [9]])))
    with pytest.raises(DataError, match="holds no graphs"):
        from_pyg([])


def test_pygs_data_sets_are_read() -> None:
    dataset = FakeDataset(
        num_graphs=6, avg_num_nodes=9, num_channels=5, edge_dim=2, num_classes=3, task="graph"
    )
    graphs = from_pyg(dataset, name="fake")
    assert (len(graphs), graphs.num_features, graphs.num_edge_features) == (6, 5, 2)
    assert torch.equal(graphs[4].edge_index, dataset[4].edge_index)
    assert torch.equal(graphs[4].edge_attr, dataset[4].edge_attr)
    again = GraphSet.from_data_list(Batch.from_data_list(list(dataset)).to_data_list(), name="fake")
    assert torch.equal(again.x, graphs.x)


@pytest.mark.parametrize("name", ["graphs", "hypergraphs", "eeg", "relations"])
def test_importing_a_package_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, graphrec.pipelines.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"graphrec.pipelines.{name}" in loaded
    assert not loaded & {"torch", "polars", "torch_geometric", "mne", "scipy"}


def test_numpys_integers_name_one_graph() -> None:
    graphs = from_pyg([one(), one(x=torch.zeros(2, 1))])
    assert isinstance(graphs[np.int64(1)], Data)
    assert graphs[np.int64(-1)].x.sum() == 0
