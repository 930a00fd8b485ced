"""Rows collected batch by batch."""

from __future__ import annotations

import numpy as np
import pytest

from graphrec.metrics.growing import GrowingArray, collect


def test_rows_are_those_of_the_batches_in_order() -> None:
    random = np.random.default_rng(0)
    batches = [random.normal(size=(rows, 3)).astype(np.float32) for rows in (4, 1, 0, 9, 2, 33)]
    found, counts = collect(iter(batches))
    assert found is not None
    np.testing.assert_array_equal(found, np.concatenate(batches))
    assert found.dtype == np.float32
    assert counts == [4, 1, 0, 9, 2, 33]


def test_nothing_has_no_rows() -> None:
    assert collect(iter(())) == (None, [])
    with pytest.raises(ValueError, match="nothing was appended"):
        _ = GrowingArray().array


def test_further_rows_leave_an_earlier_view_alone() -> None:
    rows = GrowingArray()
    rows.append(np.arange(5))
    rows.append(np.arange(5, 8))
    before = rows.array
    for start in range(8, 40, 4):
        rows.append(np.arange(start, start + 4))
    np.testing.assert_array_equal(before, np.arange(8))
    np.testing.assert_array_equal(rows.array, np.arange(40))
    assert len(rows) == 40


@pytest.mark.parametrize("other", [np.zeros((2, 1), np.float32), np.zeros((2, 3)), np.zeros(2, np.float32)])
def test_rows_of_another_kind_are_refused(other: np.ndarray) -> None:
    rows = GrowingArray()
    rows.append(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="rows of float"):
        rows.append(other)
