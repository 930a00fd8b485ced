"""Group AUC against the definition, group by group, with scikit-learn."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from graphrec.errors import DataError
from graphrec.metrics import group_auc


def by_definition(y, p, groups, w):
    """(mean, weighted, used, groups) with a loop over groups."""
    aucs, sizes = [], []
    for g in np.unique(groups):
        rows = groups == g
        if 0 < y[rows].sum() < rows.sum():
            aucs.append(roc_auc_score(y[rows], p[rows], sample_weight=None if w is None else w[rows]))
            sizes.append(rows.sum() if w is None else w[rows].astype(float).sum())
    mean = float(np.mean(aucs)) if aucs else None
    return mean, float(np.average(aucs, weights=sizes)) if aucs else None, len(aucs), len(np.unique(groups))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 80),
    st.sampled_from([[0, 1, 2, 3], [-(2**62), 5, 2**62], [7]]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
@settings(max_examples=150)
def test_equals_definition(seed, n, ids, dtype, weighted):
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(0, 2, n), rng.choice(np.array(ids), n)
    p = (rng.integers(0, 8, n) / 7).astype(dtype)
    w = rng.uniform(0.5, 4, n).astype(np.float32) if weighted else None
    got = group_auc(y, p, groups, w)
    mean, size_weighted, used, count = by_definition(y, p, groups, w)
    assert (got.used, got.groups) == (used, count)
    assert got.mean == (None if mean is None else pytest.approx(mean, abs=1e-9))
    assert got.weighted == (None if mean is None else pytest.approx(size_weighted, abs=1e-9))


def test_the_two_weightings_differ_as_defined():
    y = [0, 1, 1, 0, 0, 1]
    p = [0.1, 0.9, 0.2, 0.8, 0.7, 0.75]
    got = group_auc(y, p, [1, 1, 2, 2, 2, 2])
    assert got.mean == pytest.approx((1.0 + 0.25) / 2)
    assert got.weighted == pytest.approx((2 * 1.0 + 4 * 0.25) / 6)


def test_strings_and_small_integer_dtypes_group_alike():
    y, p = [0, 1, 1, 0], np.array([0.3, 0.6, 0.1, 0.9], np.float32)
    for groups in (
        ["a", "a", "b", "b"],
        np.array([-128, -128, 127, 127], np.int8),
        np.array([1, 1, 2**64 - 1, 2**64 - 1], np.uint64),
    ):
        assert group_auc(y, p, groups).mean == pytest.approx(0.5)


def test_missing_labels_and_zero_weights_leave_the_rows_out():
    y, p, g = [0, 1, np.nan, 1], [0.2, 0.8, 0.1, 0.0], [1, 1, 1, 1]
    assert group_auc(y, p, g, [1, 1, 1, 0]).mean == 1.0
    assert group_auc([np.nan], [0.1], [1]) == group_auc([], [], [])


def test_wrong_shape_is_refused():
    with pytest.raises(DataError, match=r"groups: shape \(1,\), expected \(2,\)"):
        group_auc([0, 1], [0.1, 0.2], [1])


def test_a_million_rows_take_less_than_a_second_of_cpu():
    rng = np.random.default_rng(0)
    n = 1_000_000
    y, p, g = rng.integers(0, 2, n), rng.random(n, np.float32), rng.integers(0, 100_000, n)
    start = time.process_time()
    got = group_auc(y, p, g)
    assert time.process_time() - start < 1.0
    assert got.mean == pytest.approx(0.5, abs=0.01)
