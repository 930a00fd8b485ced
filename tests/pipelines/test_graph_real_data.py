"""The published sets, read whole: their counts are those that papers and other libraries give."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from graph_tools import real
from sklearn.neighbors import KNeighborsClassifier

from graphrec.errors import DataError
from graphrec.pipelines.eeg import EPOC, make_windows, read_arff, split_by_time, treat_outliers
from graphrec.pipelines.graphs import node_split, read_folds, read_masked_npz, read_planetoid, read_tu_text
from graphrec.pipelines.hypergraphs import from_graph, production_split, read_hypergraph_npz
from graphrec.pipelines.index_splits import never_tested
from graphrec.pipelines.relations import join_parts, read_chemprot, read_nary_folds, read_pubtator

pytestmark = pytest.mark.data

TU = {  # graphs, nodes, features, classes, graphs that no fold tests
    "MUTAG": (188, 3371, 7, 2, 8),
    "PTC": (344, 8792, 19, 2, 4),
    "NCI1": (4110, 122747, 37, 2, 0),
    "PROTEINS": (1113, 43471, 3, 2, 3),
    "IMDBBINARY": (1000, 19773, 65, 2, 0),
    "IMDBMULTI": (1500, 19502, 59, 3, 0),
}


@pytest.mark.parametrize("name", TU)
def test_tu(name: str) -> None:
    path = real("tu", name, f"{name}.txt")
    begin = time.perf_counter()
    graphs = read_tu_text(path)
    assert time.perf_counter() - begin < 10
    graph_count, nodes, features, classes, untested = TU[name]
    assert (len(graphs), len(graphs.x), graphs.num_features, graphs.num_classes) == (
        graph_count,
        nodes,
        features,
        classes,
    )
    assert torch.equal(graphs.x.sum(1), torch.ones(nodes))
    folds = read_folds(path.parent / "10fold_idx", len(graphs))
    assert len(folds) == 10
    assert len(never_tested(folds)) == untested


@pytest.mark.parametrize(
    ("mine", "other"), [("MUTAG", "NCI1"), ("NCI1", "MUTAG"), ("PROTEINS", "IMDBBINARY")]
)
def test_folds_of_another_set(mine: str, other: str) -> None:
    with pytest.raises(DataError, match="another set's folds"):
        read_folds(real("tu", other, "10fold_idx"), TU[mine][0])


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "train", "unlabelled"),
    [("cora", 2708, 10556, 140, 0), ("citeseer", 3327, 9104, 120, 15)],
)
def test_planetoid(name: str, nodes: int, edges: int, train: int, unlabelled: int) -> None:
    data = read_planetoid(real("planetoid"), name)
    assert (data.num_nodes, data.num_edges) == (nodes, edges)
    assert int((data.y < 0).sum()) == unlabelled
    split = node_split(data)
    assert (len(split.train), len(split.valid), len(split.test)) == (train, 500, 1000)
    assert from_graph(data).num_edges == edges // 2 + nodes


HETEROPHILOUS = {
    "minesweeper": (10000, 39402),
    "tolokers": (11758, 519000),
    "actor": (7600, 26659),
    "chameleon_filtered": (890, 8854),
    "squirrel_filtered": (2223, 46998),
}


@pytest.mark.parametrize("name", HETEROPHILOUS)
def test_heterophilous(name: str) -> None:
    data = read_masked_npz(real("heterophilous", f"{name}.npz"))
    assert (data.num_nodes, data.num_edges // 2) == HETEROPHILOUS[name]
    assert len({len(node_split(data, k).train) for k in range(10)}) >= 1


HYPERGRAPHS = {
    "cocitation_cora": (2708, 1579),
    "cocitation_citeseer": (3312, 1079),
    "coauthorship_cora": (2708, 1072),
}


@pytest.mark.parametrize("name", HYPERGRAPHS)
def test_hypergraphs(name: str) -> None:
    graph = read_hypergraph_npz(real("hypergcn_npz", f"{name}.npz"))
    assert (graph.num_vertices, graph.num_edges) == HYPERGRAPHS[name]
    split = production_split(graph.with_singletons(), seed=0)
    assert len(split.split.train) == 20 * graph.num_classes
    assert len(split.split.valid) == 100 * graph.num_classes
    assert split.observed.num_vertices == graph.num_vertices - len(split.inductive)


def test_eeg_eye_state() -> None:
    recordings = read_arff(real("eeg_eye_state", "EEG_Eye_State.arff"), rate=128, label="eyeDetection")
    one = recordings[0]
    assert one.signal.shape == (14980, 14)
    assert one.channels == EPOC.channels
    assert torch.bincount(one.label).tolist() == [8257, 6723]
    marked, _ = treat_outliers(recordings, "mark")
    assert (marked[0].bad.nonzero().flatten() + 1).tolist() == [899, 10387, 11510, 13180]
    windows = make_windows(marked, 128, 16)
    split = split_by_time(windows, 0.1, 0.2, gap=128)
    assert int(windows.offset[split.train].max()) + 128 + 128 <= int(windows.offset[split.valid].min())
    assert windows.x(split.test).abs().max() < 10_000


def test_random_splits_of_eeg_leak() -> None:
    recordings = read_arff(real("eeg_eye_state", "EEG_Eye_State.arff"), rate=128, label="eyeDetection")
    one = treat_outliers(recordings, "interpolate")[0][0]
    x, y = one.signal.numpy(), one.label.numpy()
    order = np.random.default_rng(0).permutation(len(y))
    cut = int(0.8 * len(y))
    scores = [
        KNeighborsClassifier(3).fit(x[i[:cut]], y[i[:cut]]).score(x[i[cut:]], y[i[cut:]])
        for i in (order, np.arange(len(y)))
    ]
    assert scores[0] > 0.95
    assert scores[1] < 0.6
    assert max(np.mean(y[cut:] == 0), np.mean(y[cut:] == 1)) > 0.9


@pytest.mark.parametrize(
    ("name", "instances", "entities", "counts"),
    [
        (
            "ternary",
            6987,
            3,
            {
                "None": 3580,
                "resistance or non-response": 1479,
                "sensitivity": 1149,
                "response": 488,
                "resistance": 291,
            },
        ),
        (
            "binary",
            6087,
            2,
            {
                "None": 2956,
                "resistance or non-response": 1259,
                "sensitivity": 1044,
                "response": 501,
                "resistance": 327,
            },
        ),
    ],
)
def test_nary(name: str, instances: int, entities: int, counts: dict[str, int]) -> None:
    relations, splits = read_nary_folds(real("pubmed_nary", name))
    assert (len(relations), relations.num_entities, len(splits)) == (instances, entities, 5)
    assert dict(zip(relations.classes, torch.bincount(relations.y).tolist(), strict=True)) == counts
    assert sum(len(s.test) for s in splits) == instances
    if name == "ternary":
        shared = torch.isin(relations.text, relations.text[splits[0].test])
        shared[splits[0].test] = False
        assert int(shared.sum()) == 1322


def test_chemprot() -> None:
    relations, split = join_parts(
        *(read_chemprot(real("chemprot", f"{p}.jsonl")) for p in ("train", "dev", "test"))
    )
    assert (len(split.train), len(split.valid), len(split.test)) == (4169, 2427, 3469)
    assert len(relations.classes) == 13


@pytest.mark.parametrize(("part", "related"), [("Training", 1038), ("Development", 1012), ("Test", 1066)])
def test_cdr(part: str, related: int) -> None:
    relations = read_pubtator(real("bc5cdr", f"CDR_{part}Set.PubTator.txt.gz"))
    assert torch.bincount(relations.y).tolist()[1] == related
    assert len(relations.text.unique()) == 500
