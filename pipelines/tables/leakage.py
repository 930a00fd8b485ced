"""Columns that give the label away, found one column at a time on a sample of the training rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .features import Field, FieldKind

if TYPE_CHECKING:
    from .shards import Block, EncodedTable

THRESHOLD = 0.999
_SAMPLE = 40_000
_RUNS = 64
_FEWEST = 20


def find_leaks(
    encoded: EncodedTable, *, threshold: float = THRESHOLD, sample: int = _SAMPLE, seed: int = 0
) -> list[str]:
    """Names of the fields that alone predict some label with an AUC above ``threshold``.

    A number is scored by itself and by its absence; a category by the label's mean over its rows in one half
    of the sample, judged on the other half, so that ids seen once or twice prove nothing.

    Args:
        encoded: Training rows.
        threshold: AUC above which a field is reported.
        sample: Most rows to look at.
        seed: Of the choice of rows and halves.
    """
    block = _sample_rows(encoded, sample, seed)
    half = np.random.default_rng([seed, 1]).random(len(block)) < 0.5
    columns = _columns(encoded, block)
    scores = np.full((block.labels.shape[1], len(columns)), 0.5)
    for rows, tasks in _alike(block.labels):
        labels = block.labels[rows][:, tasks]
        for j, (field, values) in enumerate(columns):
            scores[tasks, j] = _scores(field, values[rows], labels, half[rows])
    guilty = np.argwhere(scores > threshold)
    return list(dict.fromkeys(columns[j][0].name for _, j in guilty))


def _alike(labels: np.ndarray) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Labels that the same rows have, with these rows: what is sorted is sorted once for all of them."""
    known = ~np.isnan(labels)
    groups: dict[bytes, list[int]] = {}
    for task in range(labels.shape[1]):
        if min((labels[:, task] == 0).sum(), (labels[:, task] == 1).sum()) >= _FEWEST:
            groups.setdefault(known[:, task].tobytes(), []).append(task)
    for tasks in groups.values():
        yield np.flatnonzero(known[:, tasks[0]]), tasks


def _sample_rows(encoded: EncodedTable, sample: int, seed: int) -> Block:
    from .shards import concatenate

    if len(encoded) <= sample:
        return encoded.block(0, len(encoded))
    size = sample // _RUNS
    starts = np.linspace(0, len(encoded) - size, _RUNS).astype(np.int64)
    return concatenate([encoded.block(int(s), int(s) + size) for s in starts])


def _columns(encoded: EncodedTable, block: Block) -> list[tuple[Field, np.ndarray]]:
    out: list[tuple[Field, np.ndarray]] = []
    for fields, values in (
        (encoded.spec.categorical, block.categorical),
        (encoded.spec.numeric, block.numeric),
    ):
        out += [(f, values[:, j]) for j, f in enumerate(fields)]
    # Of a list, its length and its last item are looked at: the likeliest ways in.
    for field, items in zip(encoded.spec.lists, block.lists, strict=True):
        lengths = (items != 0).sum(1)
        out.append((field, items[np.arange(len(items)), np.maximum(lengths - 1, 0)]))
    return out


def _scores(field: Field, values: np.ndarray, labels: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(T,) how well a column (n,) alone predicts each label of (n, T)."""
    if field.kind is not FieldKind.NUMERIC:
        return _category_scores(values, labels, half)
    missing = np.isnan(values)
    if not missing.any():
        return _either_way(labels, values)
    best = np.full(labels.shape[1], 0.5) if missing.all() else _either_way(labels, missing.astype(np.float32))
    present = ~missing
    if present.mean() > 0.5:
        there = labels[present]
        enough = np.minimum((there == 0).sum(0), (there == 1).sum(0)) >= _FEWEST
        best = np.where(enough, np.maximum(best, _either_way(there, values[present])), best)
    return best


def _category_scores(ids: np.ndarray, labels: np.ndarray, half: np.ndarray) -> np.ndarray:
    size = int(ids.max()) + 1
    scores = np.full(labels.shape[1], 1.0)
    for learn, judge in ((half, ~half), (~half, half)):
        seen, asked, known, wanted = ids[learn], ids[judge], labels[learn], labels[judge]
        total = np.bincount(seen, minlength=size) + 1.0
        for task, share in enumerate(known.mean(0)):
            if share in (0, 1):
                scores[task] = 0.5
                continue
            clicks = np.bincount(seen, weights=known[:, task], minlength=size)
            found = auc(wanted[:, task], ((clicks + share) / total)[asked])
            scores[task] = min(scores[task], found)
    return scores


def _either_way(labels: np.ndarray, score: np.ndarray) -> np.ndarray:
    values = _aucs(labels, score)
    return np.maximum(values, 1 - values)


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half; 0.5 when a class is absent."""
    return float(_aucs(y[:, None], score)[0])


def _aucs(labels: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(T,) `auc` of each label of (n, T)."""
    order = np.argsort(score)
    ordered = score[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(first, len(ordered)))
    ranks = np.empty(len(score))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positive = (labels == 1).astype(np.float64)
    p = positive.sum(0)
    n = len(score) - p
    pairs = np.where(p * n > 0, p * n, np.nan)
    return np.nan_to_num((ranks @ positive - p * (p + 1) / 2) / pairs, nan=0.5)


def describe_leaks(names: Sequence[str]) -> str:
    """One line for a warning."""
    listed = ", ".join(repr(n) for n in names)
    return f"{listed}: predicts the label almost perfectly alone; if it is known only afterwards, ignore it"
