"""Planetoid's files and the .npz of the heterophilous graphs: read without running what a pickle may run."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import load_arrays, node_split, read_masked_npz, read_planetoid

RNG = np.random.default_rng(0)
KNOWN, TRAIN, TEST, WIDTH, CLASSES = 8, 3, [9, 11, 8], 4, 2
"""Nodes 0 to 7 are in allx, 8, 9 and 11 are tested, and 10 is in no file, as it happens in Citeseer."""


def onehot(rows: int) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.int32)[np.arange(rows) % CLASSES]


def planetoid(folder: Path, **change: Any) -> Path:
    allx = RNG.random((KNOWN, WIDTH)).round().astype(np.float32)
    adjacency = collections.defaultdict(list, {0: [1, 1, 0], 1: [0], 8: [2], 2: [8], 11: [0]})
    parts: dict[str, Any] = {
        "x": csr_matrix(allx[:TRAIN]),
        "allx": csr_matrix(allx),
        "tx": csr_matrix(np.full((len(TEST), WIDTH), [[1], [2], [3]], np.float32)),
        "y": onehot(TRAIN),
        "ally": onehot(KNOWN),
        "ty": onehot(len(TEST)),
        "graph": adjacency,
    } | change
    folder.mkdir(exist_ok=True)
    for name, value in parts.items():
        (folder / f"ind.toy.{name}").write_bytes(pickle.dumps(value, protocol=2))
    (folder / "ind.toy.test.index").write_text("\n".join(map(str, TEST)))
    return folder


def test_planetoid(tmp_path: Path) -> None:
    data = read_planetoid(planetoid(tmp_path), "Toy", valid=4)
    assert data.x.shape == (12, WIDTH)
    assert data.x[[9, 11, 8]].tolist() == [[1.0] * 4, [2.0] * 4, [3.0] * 4]
    assert data.y.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, -1, 1]
    assert data.edge_index.tolist() == [[0, 0, 1, 2, 8, 11], [1, 11, 0, 8, 2, 0]]
    split = node_split(data)
    assert split.train.tolist() == [0, 1, 2]
    assert split.valid.tolist() == [3, 4, 5, 6]
    assert split.test.tolist() == [8, 9, 11]
    assert split.left_out.tolist() == [7, 10]


class Evil:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_something_is_refused_unrun(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Evil(proof)))
    assert proof.exists()
    proof.unlink()
    folder = planetoid(tmp_path / "set", ally=Evil(proof))
    with pytest.raises(DataError, match=r"ind.toy.ally: holds \S+, which is not an array; it is refused"):
        read_planetoid(folder, "toy")
    assert not proof.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "one"
    path.write_bytes(
        pickle.dumps([csr_matrix([[0, 2.5], [0, 0]]), np.arange(3), {"a": [1]}], protocol=protocol)
    )
    found = load_arrays(path)
    assert found[0].dense("one").tolist() == [[0.0, 2.5], [0.0, 0.0]]
    assert found[1].tolist() == [0, 1, 2]
    assert found[2] == {"a": [1]}


@pytest.mark.parametrize(
    "value",
    [print, Path("x"), {1, 2}.__class__, np.random.default_rng(0), pytest.raises, slice(1), eval, object()],
)
def test_whatever_else_is_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "one"
    path.write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(DataError, match="refused"):
        load_arrays(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tx": csr_matrix(np.ones((3, 5)))}, "ind.toy.tx: 5 columns where the other file has 4"),
        ({"tx": csr_matrix(np.ones((2, 4)))}, "test.index: 3 different nodes for the 2 rows of tx"),
        ({"graph": {0: [12]}}, "ind.toy.graph: edge 0 -> 12 leads to a missing node; there are 12"),
        ({"graph": {-1: [0]}}, "ind.toy.graph: edge -1 -> 0"),
        ({"graph": [1, 2]}, "ind.toy.graph: holds list"),
        ({"allx": [1]}, "ind.toy.allx: holds list, not a matrix"),
        ({"y": onehot(3) * np.nan}, "ind.toy.y: row 0 is not finite"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_planetoid(planetoid(tmp_path, **change), "toy")


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = planetoid(tmp_path) / "ind.toy.allx"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ind.toy.allx: broken or cut short"):
        read_planetoid(tmp_path, "toy")
    path.unlink()
    with pytest.raises(DataError, match=r"ind.toy.allx: cannot be read"):
        read_planetoid(tmp_path, "toy")


def npz(path: Path, **change: Any) -> Path:
    masks = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], bool)
    arrays = {
        "node_features": np.arange(8.0).reshape(4, 2),
        "node_labels": np.array([0, 1, 1, 0]),
        "edges": np.array([[0, 1], [1, 2], [2, 1]]),
        "train_masks": masks,
        "val_masks": np.roll(masks, 1, axis=1),
        "test_masks": np.roll(masks, 2, axis=1),
    } | change
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_masked_npz(tmp_path: Path) -> None:
    data = read_masked_npz(npz(tmp_path / "one.npz"))
    assert data.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert data.train_mask.shape == (4, 2)
    assert node_split(data, 1).test.tolist() == [3]
    with pytest.raises(ConfigError, match="split 2: the graph has splits 0 to 1"):
        node_split(data, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": np.array([[0, 1], [4, 1]])}, r"edges: row 2 \[4, 1\]: nodes are 0 to 3"),
        ({"edges": np.array([[0, 1], [-1, 1]])}, r"edges: row 2 \[-1, 1\]"),
        ({"node_features": np.full((4, 2), np.inf)}, "node_features: row 1 is not finite"),
        ({"node_labels": np.array([0, 1, -1, 0])}, "node_labels: row 3"),
        ({"node_labels": np.array([0, 1])}, "do not fit together"),
        ({"train_masks": np.ones((2, 3), bool)}, "train_masks: bool of shape"),
        ({"train_masks": np.ones((2, 4), bool)}, "node 1 is in two parts"),
        ({"node_labels": np.array([0, 1, np.nan, 0])}, "node_labels: row 3"),
        ({"edges": np.array([[0, 0.5]])}, "edges are float64"),
        ({"edges": None}, "array 'edges' is missing"),
        ({"edges": np.array([[0, 1], None], object)}, "cannot be read"),
    ],
)
def test_a_broken_npz_names_array_and_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_masked_npz(npz(tmp_path / "one.npz", **change))


def test_an_npz_cut_short_is_named(tmp_path: Path) -> None:
    path = npz(tmp_path / "one.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"one.npz: cannot be read"):
        read_masked_npz(path)
