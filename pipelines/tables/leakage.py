"""Columns that give the label away, found one column at a time on a sample of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
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
    leaks: dict[str, None] = {}
    for task in range(block.labels.shape[1]):
        y = block.labels[:, task]
        known = ~np.isnan(y)
        if min((y == 0).sum(), (y == 1).sum()) < _FEWEST:
            continue
        for field, values in _columns(encoded, block):
            if _score(field, values[known], y[known], half[known]) > threshold:
                leaks[field.name] = None
    return list(leaks)


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


def _score(field: Field, values: np.ndarray, y: np.ndarray, half: np.ndarray) -> float:
    if field.kind is not FieldKind.NUMERIC:
        return _category_score(values, y, half)
    missing = np.isnan(values)
    best = _either_way(y, missing.astype(np.float32)) if missing.any() and not missing.all() else 0.5
    filled = np.where(missing, np.float32(0), values)
    if missing.any():
        present = ~missing
        if min((y[present] == 0).sum(), (y[present] == 1).sum()) >= _FEWEST:
            best = max(best, _either_way(y[present], values[present]) if present.mean() > 0.5 else 0.5)
        return best
    return max(best, _either_way(y, filled))


def _category_score(ids: np.ndarray, y: np.ndarray, half: np.ndarray) -> float:
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return 0.5
    size = int(ids.max()) + 1
    scores = []
    for learn, judge in ((half, ~half), (~half, half)):
        total = np.bincount(ids[learn], minlength=size)
        clicks = np.bincount(ids[learn], weights=y[learn], minlength=size)
        mean = (clicks + y[learn].mean()) / (total + 1.0)
        scores.append(auc(y[judge], mean[ids[judge]]))
    return min(scores)


def _either_way(y: np.ndarray, score: np.ndarray) -> float:
    value = auc(y, score)
    return max(value, 1 - value)


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half; 0.5 when a class is absent."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    counts = np.diff(np.append(first, len(ordered)))
    ranks = np.repeat(first + (counts + 1) / 2, counts)
    positive = y[order] == 1
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return 0.5
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def describe_leaks(names: Sequence[str]) -> str:
    """One line for a warning."""
    listed = ", ".join(repr(n) for n in names)
    return f"{listed}: predicts the label almost perfectly alone; if it is known only afterwards, ignore it"
