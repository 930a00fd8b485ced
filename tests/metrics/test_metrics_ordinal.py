"""Metrics of ordered classes, by hand and against the official arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from graphrec.errors import DataError
from graphrec.metrics import seq2hr, top_k_accuracy, tri_p
from graphrec.training.stopping import higher_is_better

Y = [2, 2, 0, 4, 1]
SCORES = [
    [0.0, 0.3, 0.6, 0.1, 0.0],  # 2 then 1: right, neighbours
    [0.0, 0.0, 0.4, 0.0, 0.6],  # 4 then 2: second right, no neighbours; 2 away
    [0.2, 0.5, 0.3, 0.0, 0.0],  # 1 then 2: wrong, neighbours; 1 away
    [0.6, 0.0, 0.0, 0.1, 0.3],  # 0 then 4: second right; 4 away
    [0.0, 0.3, 0.4, 0.2, 0.1],  # 2 then 1: second right, neighbours; 1 away
]


def test_by_hand() -> None:
    assert seq2hr(Y, SCORES) == pytest.approx(2 / 5)
    assert tri_p(Y, SCORES) == pytest.approx(3 / 5)
    assert top_k_accuracy(Y, SCORES, 1) == pytest.approx(1 / 5)
    assert top_k_accuracy(Y, SCORES, 2) == pytest.approx(4 / 5)
    assert top_k_accuracy(Y, SCORES, 5) == 1


def test_against_confusions_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 5, 400), rng.dirichlet(np.ones(5), 400)
    counts = confusion_matrix(y, p.argmax(1))
    near = sum(counts[i, j] for i in range(5) for j in range(5) if abs(i - j) <= 1)
    assert tri_p(y, p) == pytest.approx(near / 400)
    assert top_k_accuracy(y, p, 2) == pytest.approx(top_k_accuracy_score(y, p, k=2))
    ranked = np.argsort(p, axis=1)[:, ::-1]
    adjacent = np.abs(ranked[:, 0] - ranked[:, 1]) == 1
    hit = (ranked[:, 0] == y) | (ranked[:, 1] == y)
    assert seq2hr(y, p) == pytest.approx(np.mean(adjacent & hit))
    assert seq2hr(y, p) <= top_k_accuracy(y, p, 2)


def test_odd_inputs() -> None:
    assert tri_p([], np.zeros((0, 3))) is None
    assert seq2hr([1], [[0.5, 0.5]]) == 1, "of a tie the lower class ranks first"
    assert top_k_accuracy([0, 1], [[0.5, 0.5]] * 2, 1) == 0.5
    for y, scores, message in (
        ([0, 1], [[1.0, 0.0]], "must be"),
        ([0], [0.5], "must be"),
        ([2], [[0.5, 0.5]], "scores have 2 classes"),
        ([-1], [[0.5, 0.5]], "run from -1"),
    ):
        with pytest.raises(DataError, match=message):
            tri_p(y, scores)
    with pytest.raises(DataError, match="two classes or more"):
        seq2hr([0], [[1.0]])


@pytest.mark.parametrize("name", ["seq2hr", "tri_p", "top2_accuracy", "f1_weighted", "balanced_accuracy"])
def test_more_is_better(name: str) -> None:
    assert higher_is_better(name)
