"""Metrics of several classes equal scikit-learn's, absent classes and certain mistakes included."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from graphrec.metrics import class_metrics, macro_f1


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=150)
def test_equal_to_sklearn(rows: int, classes: int, seed: int, certain: bool) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, rng.integers(1, classes + 1), rows)
    p = rng.dirichlet(np.ones(classes), rows)
    p = np.eye(classes)[p.argmax(1)] if certain else p
    p = p.astype(np.float32)
    found = class_metrics(y, p)
    wide = p.astype(np.float64)
    wide /= wide.sum(1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = log_loss(y, wide, labels=np.arange(classes))
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert found["logloss"] == pytest.approx(loss)
    assert found["f1_macro"] == pytest.approx(f1_score(y, p.argmax(1), average="macro", zero_division=0))
    assert ("auc" in found) == (classes == 2)
    if classes == 2:
        both = len(np.unique(y)) == 2
        assert found["auc"] == (pytest.approx(roc_auc_score(y, wide[:, 1])) if both else None)


def test_without_rows_nothing_is_defined() -> None:
    assert class_metrics(np.empty(0, np.int64), np.empty((0, 2))) == dict.fromkeys(
        ["accuracy", "logloss", "f1_macro", "auc"]
    )


def test_a_class_that_is_only_predicted_counts() -> None:
    assert macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])) == pytest.approx((1 + 2 / 3 + 0) / 3)
