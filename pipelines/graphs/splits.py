"""Splits of graphs and nodes that come with a data set: fold files and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError

from ..index_splits import IndexSplit, from_masks


def read_folds(folder: str | Path, graphs: int, *, most_left_out: float = 0.1) -> list[IndexSplit]:
    """Fixed folds, files ``train_idx-<k>.txt`` and ``test_idx-<k>.txt`` with an index in each line.

    Args:
        folder: Such as ``MUTAG/10fold_idx``.
        graphs: How many graphs the set has.
        most_left_out: Share of the graphs that may be in no test part. Some of the folds in circulation leave
            out a few (8 of MUTAG's 188, which always train); more is a sign of another set's folds.
            `index_splits.never_tested` tells which.

    Returns:
        A split for each fold, in the order of ``k``; they have no validation part.

    Raises:
        DataError: A file is missing or broken, an index is no graph of the set, test parts overlap, or the
            folds leave out too many: they are those of another set.
    """
    tests = sorted(Path(folder).glob("test_idx-*.txt"), key=_number)
    if not tests:
        raise DataError(f"{folder}: holds no test_idx-<k>.txt; give the folder with the folds")
    splits, seen = [], np.full(graphs, -1)
    for path in tests:
        test, k = _indices(path, graphs), _number(path)
        train = _indices(path.with_name(f"train_idx-{k}.txt"), graphs)
        both = np.intersect1d(train, test)
        if len(both):
            raise DataError(f"{path}: graph {both[0]} trains and tests in fold {k}")
        again = seen[test] >= 0
        if again.any():
            index = test[again][0]
            raise DataError(
                f"{path}: row {int(again.argmax()) + 1}: graph {index} also tests in fold {seen[index]}"
            )
        seen[test] = k
        splits.append(IndexSplit.of(train, [], test, total=graphs, name=f"{folder}: fold {k}"))
    left = max(int((seen < 0).sum()), max(len(s.left_out) for s in splits))
    if left > most_left_out * graphs:
        raise DataError(
            f"{folder}: leaves out {left} of {graphs} graphs; these are another set's folds, or a fold is "
            "missing (most_left_out allows it)"
        )
    return splits


def _number(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    if not text.isdigit():
        raise DataError(f"{path}: a fold file must be called test_idx-<number>.txt")
    return int(text)


def _indices(path: Path, graphs: int) -> np.ndarray:
    try:
        tokens = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); every fold needs a train and a test file"
        ) from error
    if not tokens:
        raise DataError(f"{path}: is empty")
    wrong = next((i for i, t in enumerate(tokens) if not t.isdecimal() or int(t) >= graphs), None)
    if wrong is not None:
        raise DataError(
            f"{path}: row {wrong + 1}: {tokens[wrong]!r} is no graph of this set (0 to {graphs - 1}); "
            "these are another set's folds"
        )
    index = np.array(tokens, dtype=np.int64)
    values, counts = np.unique(index, return_counts=True)
    if counts.max() > 1:
        raise DataError(f"{path}: graph {values[counts.argmax()]} occurs {counts.max()} times")
    return index


def node_split(data: Data, number: int = 0) -> IndexSplit:
    """The split in a graph's masks.

    Args:
        data: With train_mask, val_mask and test_mask, bool (N,) or (N, splits).
        number: Which of several splits.

    Raises:
        ConfigError: The graph has no masks, or not so many.
        DataError: The masks overlap, or hold a node without a label.
    """
    masks = []
    for part in ("train", "val", "test"):
        mask = data.get(f"{part}_mask")
        if mask is None:
            raise ConfigError(
                f"the graph has no {part}_mask; make a split, for example with index_splits.per_class"
            )
        mask = mask if mask.dim() == 2 else mask[:, None]
        if not 0 <= number < mask.shape[1]:
            raise ConfigError(f"split {number}: the graph has splits 0 to {mask.shape[1] - 1}")
        masks.append(mask[:, number])
    split = from_masks(masks[0], masks[1], masks[2], f"split {number}")
    return _refuse_unlabelled(split, data)


def add_split(data: Data, split: IndexSplit) -> Data:
    """A copy of the graph with the split as its masks; tensors are shared.

    Raises:
        DataError: The split is of another number of nodes, or holds a node without a label.
    """
    if split.total != data.num_nodes:
        raise DataError(f"{split.name}: splits {split.total} nodes, the graph has {data.num_nodes}")
    _refuse_unlabelled(split, data)
    copy: Any = data.clone("_")  # clones no tensor of this name: a shallow copy
    copy.train_mask, copy.val_mask, copy.test_mask = split.masks()
    return copy


def _refuse_unlabelled(split: IndexSplit, data: Data) -> IndexSplit:
    if isinstance(data.y, torch.Tensor) and not data.y.is_floating_point():
        used = torch.cat([split.train, split.valid, split.test])
        bad = used[data.y[used] < 0]
        if len(bad):
            raise DataError(f"{split.name}: node {int(bad[0])} has no label; leave it out of the split")
    return split
