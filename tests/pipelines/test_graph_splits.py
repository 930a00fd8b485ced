"""Splits by index: disjoint, complete, stratified, reproducible; fold files of another set are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_tools import write
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import add_split, node_split, read_folds
from graphrec.pipelines.index_splits import (
    IndexSplit,
    from_masks,
    never_tested,
    per_class,
    random_parts,
    stratified_folds,
)

labels_of = st.lists(st.integers(-1, 2), min_size=8, max_size=60).map(np.array)


@given(labels_of, st.integers(2, 4), st.integers(0, 9))
@settings(max_examples=80)
def test_folds_cover_and_keep_proportions(labels: np.ndarray, folds: int, seed: int) -> None:
    known = np.bincount(labels[labels >= 0], minlength=3)
    present = known[known > 0]
    if not len(present) or present.min() < folds:
        with pytest.raises(ConfigError, match="folds="):
            stratified_folds(labels, folds, seed=seed)
        return
    splits = stratified_folds(labels, folds, valid=0.25, seed=seed)
    tested = torch.cat([s.test for s in splits])
    assert sorted(tested.tolist()) == np.flatnonzero(labels >= 0).tolist()
    for split in splits:
        assert split.left_out.tolist() == np.flatnonzero(labels < 0).tolist()
        counts = np.bincount(labels[split.test.numpy()], minlength=3)
        assert np.abs(counts - known / folds).max() < 1
    again = stratified_folds(labels, folds, valid=0.25, seed=seed)
    assert all(torch.equal(a.train, b.train) for a, b in zip(splits, again, strict=True))


def test_unstratified_folds_allow_rare_classes() -> None:
    splits = stratified_folds([0] * 9 + [1], 5, stratify=False)
    assert [len(s.test) for s in splits] == [2] * 5
    assert len(never_tested(splits)) == 0


def test_random_parts_are_stratified() -> None:
    labels = np.array([0] * 70 + [1] * 30)
    split = random_parts(labels, 0.1, 0.2, seed=4)
    assert (len(split.train), len(split.valid), len(split.test)) == (70, 10, 20)
    assert np.bincount(labels[split.test.numpy()]).tolist() == [14, 6]
    other = random_parts(labels, 0.1, 0.2, seed=5)
    assert not torch.equal(split.test, other.test)
    with pytest.raises(ConfigError, match="must sum to less than 1"):
        random_parts(labels, 0.5, 0.5)


def test_so_many_per_class() -> None:
    labels = np.array([0, 1, 2, -1] * 30)
    split = per_class(labels, 5, 20, 30, seed=1)
    assert np.bincount(labels[split.train.numpy()]).tolist() == [5, 5, 5]
    assert (len(split.valid), len(split.test)) == (20, 30)
    rest = per_class(labels, 5, 7, None, valid_per_class=True, seed=1)
    assert np.bincount(labels[rest.valid.numpy()]).tolist() == [7, 7, 7]
    assert len(rest.test) == 90 - 3 * 12
    with pytest.raises(DataError, match="class 0 has 30 members; take fewer"):
        per_class(labels, 31, 0, None)
    with pytest.raises(DataError, match="only 75 are left"):
        per_class(labels, 5, 60, 30)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0, 1], [2], [5]), "index 5 is not one of the 5 that are split"),
        (([0, -1], [2], [3]), "index -1 is not one"),
        (([0, 1], [1], [3]), "index 1 occurs 2 times"),
        (([0, 0], [1], [3]), "index 0 occurs 2 times"),
    ],
)
def test_a_split_that_cannot_be_is_refused(parts: tuple[list[int], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        IndexSplit.of(*parts, total=5)


def test_masks_there_and_back() -> None:
    split = IndexSplit.of([0, 3], [1], [4], 6, "mine")
    again = from_masks(*split.masks())
    assert torch.equal(again.train, split.train)
    assert split.describe() == "mine: train 2, valid 1, test 1; 2 of 6 in no part (2, 5)"
    data = Data(x=torch.ones(6, 1), y=torch.tensor([0, 0, 1, 1, 0, -1]), num_nodes=6)
    with_masks = add_split(data, split)
    assert torch.equal(node_split(with_masks).test, split.test)
    assert data.get("train_mask") is None
    with pytest.raises(DataError, match="node 5 has no label"):
        add_split(data, IndexSplit.of([0], [], [5], 6))
    with pytest.raises(DataError, match="splits 5 nodes, the graph has 6"):
        add_split(data, IndexSplit.of([0], [], [4], 5))
    with pytest.raises(ConfigError, match="no train_mask"):
        node_split(data)


def folds(folder: Path, parts: list[tuple[list[int], list[int]]]) -> Path:
    for k, (train, test) in enumerate(parts, 1):
        write(folder / f"train_idx-{k}.txt", "\n".join(map(str, train)))
        write(folder / f"test_idx-{k}.txt", "\n".join(map(str, test)))
    return folder


def given_folds(graphs: int, count: int, left_out: int = 0) -> list[tuple[list[int], list[int]]]:
    tested = np.array_split(np.arange(graphs - left_out), count)
    return [(sorted(set(range(graphs)) - set(t.tolist())), t.tolist()) for t in tested]


def test_given_folds_are_read_in_order(tmp_path: Path) -> None:
    splits = read_folds(folds(tmp_path, given_folds(24, 12)), 24)
    assert [int(s.test[0]) for s in splits] == list(range(0, 24, 2))
    assert all(len(s.left_out) == 0 and len(s.valid) == 0 for s in splits)


def test_what_folds_leave_out_is_told(tmp_path: Path) -> None:
    splits = read_folds(folds(tmp_path, given_folds(24, 2, left_out=2)), 24)
    assert never_tested(splits).tolist() == [22, 23]
    with pytest.raises(DataError, match="leaves out 2 of 24 graphs; these are another set's folds"):
        read_folds(tmp_path, 24, most_left_out=0.05)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (given_folds(30, 3), r"train_idx-1.txt: row 15: '24' is no graph of this set \(0 to 23\)"),
        (given_folds(12, 3), "leaves out 12 of 24 graphs; these are another set's folds"),
        (
            [(list(range(12)), list(range(11, 24))), (list(range(12, 24)), list(range(12)))],
            "graph 11 trains and tests",
        ),
        (
            [(list(range(12)), list(range(12, 24))), (list(range(12)), [12])],
            "row 1: graph 12 also tests in fold 1",
        ),
        ([(list(range(12)), [12, 12]), (list(range(12)), [13])], "graph 12 occurs 2 times"),
        ([(list(range(12)), []), (list(range(12)), [13])], "test_idx-1.txt: is empty"),
    ],
)
def test_folds_of_another_set_are_refused(tmp_path: Path, parts: list, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_folds(folds(tmp_path, parts), 24)
    assert "\n" not in str(caught.value)


def test_a_fold_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no test_idx"):
        read_folds(tmp_path, 24)
    folds(tmp_path, given_folds(24, 2))
    (tmp_path / "train_idx-2.txt").unlink()
    with pytest.raises(DataError, match=r"train_idx-2.txt: cannot be read"):
        read_folds(tmp_path, 24)
    write(tmp_path / "train_idx-2.txt", "0\n-3\n")
    with pytest.raises(DataError, match=r"train_idx-2.txt: row 2: '-3' is no graph"):
        read_folds(tmp_path, 24)
