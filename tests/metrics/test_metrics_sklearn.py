"""Each metric equals scikit-learn's, ties, weights and extreme probabilities included."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from graphrec import metrics

EXTREME = [0.0, 1e-30, 1e-9, 1e-7, 1e-3, 0.25, 0.5, 0.75, 1 - 1e-3, 1 - 1e-7, 1.0]


@st.composite
def predictions(draw, dtype=np.float32):
    """Labels of both classes, probabilities with many ties or none and extremes, and weights or None."""
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y = rng.integers(0, 2, n)
    y[:2] = 0, 1
    p = draw(st.sampled_from([rng.integers(0, 6, n) / 5, rng.random(n), rng.choice(EXTREME, n)]))
    weights = rng.uniform(0.1, 9, n).astype(dtype) if draw(st.booleans()) else None
    return y, p.astype(dtype), weights


@given(predictions())
@settings(max_examples=150)
def test_rank_metrics_equal_sklearn(case):
    y, p, w = case
    assert metrics.roc_auc(y, p, w) == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w), abs=1e-9)
    assert metrics.average_precision(y, p, w) == pytest.approx(
        sk.average_precision_score(y, p, sample_weight=w), abs=1e-9
    )


@given(predictions(np.float64))
@settings(max_examples=100)
def test_probability_metrics_equal_sklearn(case):
    y, p, w = case
    expected = sk.log_loss(y, p, sample_weight=w, labels=[0, 1])
    assert metrics.logloss(y, p, w) == pytest.approx(expected, rel=1e-9)
    brier = sk.brier_score_loss(y, p, sample_weight=w)
    assert metrics.brier_score(y, p, w) == pytest.approx(brier, abs=1e-12)
    base = np.full(len(y), np.average(y, weights=w))
    entropy = sk.log_loss(y, base, sample_weight=w, labels=[0, 1])
    assert metrics.normalised_entropy(y, p, w) == pytest.approx(expected / entropy, rel=1e-9)


@given(predictions())
@settings(max_examples=50)
def test_logloss_of_float32_clips_where_sklearn_does(case):
    y, p, w = case
    expected = sk.log_loss(y, p, sample_weight=w, labels=[0, 1])
    assert metrics.logloss(y, p, w) == pytest.approx(expected, rel=1e-4)


@given(predictions(np.float64))
@settings(max_examples=50)
def test_curves_equal_sklearn(case):
    y, p, w = case
    s = metrics.Scores.of(y, p, w)
    false, true = s.roc()
    expected_false, expected_true, _ = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    np.testing.assert_allclose(false, expected_false, atol=1e-9)
    np.testing.assert_allclose(true, expected_true, atol=1e-9)
    precision, recall = s.precision_recall()
    expected_precision, expected_recall, _ = sk.precision_recall_curve(y, p, sample_weight=w)
    np.testing.assert_allclose(precision, expected_precision[:-1][::-1], atol=1e-9)
    np.testing.assert_allclose(recall, expected_recall[:-1][::-1], atol=1e-9)


def test_deciles_equal_sklearn_quantile_bins():
    rng = np.random.default_rng(0)
    p = rng.permutation(np.linspace(0.01, 0.99, 1000))
    y = rng.random(1000) < p**2
    table = metrics.calibration_table(y, p)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    assert [row["weight"] for row in table] == [100] * 10
    np.testing.assert_allclose([row["observed"] for row in table], observed)
    np.testing.assert_allclose([row["predicted"] for row in table], predicted)
    assert metrics.expected_calibration_error(y, p) == pytest.approx(np.abs(observed - predicted).mean())


@given(predictions(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_deciles_do_not_depend_on_row_order_and_keep_ties_together(case, random):
    y, p, w = case
    order = np.array(random.sample(range(len(y)), len(y)))
    table = metrics.calibration_table(y, p, w)
    again = metrics.calibration_table(y[order], p[order], None if w is None else w[order])
    for row, other in zip(table, again, strict=True):
        assert row == pytest.approx(other, rel=1e-9)
        assert row["low"] <= row["predicted"] * (1 + 1e-9)
        assert row["predicted"] <= row["high"] * (1 + 1e-9)
    assert sum(r["weight"] for r in table) == pytest.approx(len(y) if w is None else w.sum(), rel=1e-6)
    assert all(a["high"] < b["low"] for a, b in itertools.pairwise(table))


def test_whole_weights_equal_repeated_rows():
    rng = np.random.default_rng(1)
    y, p, w = rng.integers(0, 2, 40), (rng.integers(0, 9, 40) / 8).astype(np.float32), rng.integers(1, 5, 40)
    a, b = metrics.Scores.of(y, p, w), metrics.Scores.of(np.repeat(y, w), np.repeat(p, w))
    for name in ("auc", "pr_auc", "logloss", "ne", "brier", "ece", "calibration", "base_rate"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-12), name


def test_calibration_is_the_ratio_of_means():
    assert metrics.Scores.of([0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]).calibration == pytest.approx(2)
    assert metrics.Scores.of([0, 0], [0.5, 0.5]).calibration is None


def test_auc_error_is_the_spread_of_auc_over_samples():
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(400):
        y = np.arange(300) < 90
        p = 1 / (1 + np.exp(-rng.normal(y * 1.0, 1.0)))
        drawn.append((metrics.roc_auc(y, p), metrics.Scores.of(y, p).auc_error))
    aucs, errors = np.array(drawn).T
    assert errors.mean() == pytest.approx(aucs.std(), rel=0.1)
    assert metrics.Scores.of([0, 1, 1], [0.1, 0.2, 0.3]).auc_error is None
