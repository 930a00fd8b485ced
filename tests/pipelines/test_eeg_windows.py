"""Windows and their splits: no window straddles a border, and nothing of a test part is seen in training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from eeg_tools import recording, several
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.eeg import (
    EEGSet,
    Windows,
    adaptation_split,
    leave_one_subject_out,
    make_windows,
    split_by_recording,
    split_by_subject,
    split_by_time,
    standardise,
    time_folds,
)
from graphrec.pipelines.index_splits import IndexSplit

PARTS = ("train", "valid", "test")


def samples_of(windows: Windows, index: torch.Tensor) -> set[tuple[int, int]]:
    """Recording and sample of everything that the windows hold."""
    return {
        (int(r), int(o) + k)
        for r, o in zip(windows.recording[index], windows.offset[index], strict=True)
        for k in range(windows.length)
    }


def nearest(windows: Windows, first: torch.Tensor, second: torch.Tensor) -> int:
    """Fewest samples between windows of two parts in one recording; a large number when they never meet."""
    found = [10**6]
    for r in windows.recording.unique():
        a, b = (windows.offset[i[windows.recording[i] == r]] for i in (first, second))
        if len(a) and len(b):
            gap = (a[:, None] - b).abs() - windows.length
            found.append(int(gap.min()))
    return min(found)


@given(st.integers(1, 12), st.integers(1, 15), st.lists(st.integers(5, 40), min_size=1, max_size=4))
@settings(max_examples=60)
def test_windows_lie_in_their_recordings(length: int, stride: int, sizes: list[int]) -> None:
    recordings = EEGSet(tuple(recording(n, i % 2, name=str(i)) for i, n in enumerate(sizes)), ("0", "1"))
    expected = [(i, o) for i, n in enumerate(sizes) for o in range(0, n - length + 1, stride)]
    if not expected:
        with pytest.raises(DataError, match="no window of"):
            make_windows(recordings, length, stride)
        return
    windows = make_windows(recordings, length, stride)
    assert list(zip(windows.recording.tolist(), windows.offset.tolist(), strict=True)) == expected
    x, y = windows.batch()
    assert x.shape == (len(expected), length, 2)
    for (number, offset), one, label in zip(expected, x, y, strict=True):
        assert one[:, 0].tolist() == [float(offset + k) for k in range(length)]
        assert int(label) == number % 2


def test_mixed_windows_and_bad_samples() -> None:
    label = torch.tensor([0] * 6 + [1] * 6)
    recordings = EEGSet((recording(12, label),), ("0", "1"))
    assert make_windows(recordings, 4).y.tolist() == [0, 0, 1]
    assert make_windows(recordings, 4, mixed="last").y.tolist() == [0, 1, 1]
    assert make_windows(recordings, 4, mixed="drop").offset.tolist() == [0, 8]
    bad = torch.zeros(12, dtype=torch.bool)
    bad[4] = True
    assert make_windows(recordings.map(lambda r: replace(r, bad=bad)), 4).offset.tolist() == [0, 8]
    with pytest.raises(ConfigError, match="mixed='first'"):
        make_windows(recordings, 4, mixed="first")  # type: ignore[arg-type]
    for sizes, message in (((4, 0), "stride=0"), ((1.5,), "length=1.5"), ((4, 2.5), "stride=2.5")):
        with pytest.raises(ConfigError, match=message):
            make_windows(recordings, *sizes)
    unlabelled = make_windows(EEGSet((recording(12, None),)), 4)
    assert unlabelled.x().shape == (3, 4, 2)
    with pytest.raises(ConfigError, match="has no labels"):
        unlabelled.batch()
    with pytest.raises(DataError, match="b: has no labels, other recordings have"):
        make_windows(EEGSet((recording(12), recording(12, None, name="b")), ("0",)), 4)


@given(st.integers(2, 10), st.integers(1, 10), st.integers(0, 8))
@settings(max_examples=60)
def test_time_splits_keep_order_and_gap(length: int, stride: int, gap: int) -> None:
    windows = make_windows(several(2, 2, 200), length, stride)
    split = split_by_time(windows, 0.2, 0.3, gap=gap)
    for earlier, later in (("train", "valid"), ("valid", "test"), ("train", "test")):
        a, b = getattr(split, earlier), getattr(split, later)
        assert nearest(windows, a, b) >= gap
        for r in range(4):
            ours, theirs = (windows.offset[i[windows.recording[i] == r]] for i in (a, b))
            assert int(ours.max()) + length <= int(theirs.min())
    assert all(len(getattr(split, part)) for part in PARTS)


@given(
    st.integers(2, 8), st.integers(1, 6), st.integers(0, 5), st.integers(3, 6), st.sampled_from([None, 90])
)
@settings(max_examples=60)
def test_time_folds_share_no_sample(length: int, stride: int, gap: int, folds: int, last: int | None) -> None:
    windows = make_windows(several(2, 2, 120), length, stride)
    segment = (last or 120) // folds
    if segment - 2 * gap < length + stride:  # a segment may hold no window
        return
    splits = time_folds(windows, folds, gap=gap, last=last)
    assert len(splits) == folds
    for split in splits:
        for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
            assert nearest(windows, getattr(split, first), getattr(split, second)) >= gap
        if last is not None:
            assert min(int(windows.offset[getattr(split, p)].min()) for p in PARTS) >= 120 - last
    tested = torch.cat([s.test for s in splits])
    assert len(tested) == len(tested.unique())


@pytest.mark.parametrize("seed", range(3))
def test_subjects_and_recordings_stay_whole(seed: int) -> None:
    windows = make_windows(several(6, 3), 10, 5)
    for of, split in (
        (windows.subject, split_by_subject(windows, 0.2, 0.2, seed=seed)),
        (windows.recording, split_by_recording(windows, 0.2, 0.2, seed=seed)),
    ):
        owners = [set(of[getattr(split, part)].tolist()) for part in PARTS]
        assert not owners[0] & owners[1]
        assert not owners[0] & owners[2]
        assert not owners[1] & owners[2]
        assert len(split.left_out) == 0


def test_one_subject_is_left_out_at_a_time() -> None:
    windows = make_windows(several(4, 2), 10)
    splits = leave_one_subject_out(windows, valid=1)
    assert [windows.subject[s.test].unique().tolist() for s in splits] == [[0], [1], [2], [3]]
    for split in splits:
        assert len(windows.subject[split.valid].unique()) == 1
        assert not samples_of(windows, split.train) & samples_of(windows, split.test)
    with pytest.raises(ConfigError, match="4 subjects; leaving one out needs at least 5"):
        leave_one_subject_out(windows, valid=3)


def test_adaptation_uses_the_beginning_of_each_trial() -> None:
    windows = make_windows(several(3, 2), 10, 5)
    split = adaptation_split(windows, "s1", samples=30, gap=10)
    assert windows.subject[split.train].unique().tolist() == [1]
    assert int(windows.offset[split.train].max()) == 20
    assert int(windows.offset[split.test].min()) == 40
    with pytest.raises(ConfigError, match="must be one of s0, s1, s2"):
        adaptation_split(windows, "s9", samples=30)


def test_splits_that_cannot_be_are_refused() -> None:
    windows = make_windows(several(2, 1), 10)
    with pytest.raises(ConfigError, match="shares must sum"):
        split_by_time(windows, 0.5, 0.5)
    with pytest.raises(DataError, match="no window falls into the valid part; take shorter"):
        split_by_time(windows, 0.05, 0.2)
    with pytest.raises(ConfigError, match="2 subjects are too few"):
        split_by_subject(windows)
    with pytest.raises(ConfigError, match="needs three folds"):
        time_folds(windows, 2)


def test_scales_come_from_training_windows_alone() -> None:
    windows = make_windows(several(1, 1), 10)
    changed = replace(windows, signal=windows.signal.clone())
    changed.signal[50:] = 1e9
    train = torch.arange(5)
    one, two = standardise(windows, train), standardise(changed, train)
    assert torch.equal(one.x(train), two.x(train))
    assert one.x(train).mean().abs() < 1e-5
    assert (one.x(train).flatten(0, 1).std(dim=0, correction=0) - 1).abs().max() < 1e-5


def test_loader_goes_over_a_part() -> None:
    windows = make_windows(several(), 10)
    split: IndexSplit = split_by_time(windows)
    loader = windows.loader(split.train, 16, shuffle=True, seed=1)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert sum(len(y) for _, y in batches) == len(split.train)
    assert not torch.equal(batches[0][0], next(iter(loader))[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signal": np.zeros((12, 2))}, "r: the signal must be a tensor of real numbers, found float64"),
        ({"signal": torch.zeros(12, 2, dtype=torch.complex64)}, "real numbers, found torch.complex64"),
        ({"rate": "a"}, "r: rate 'a'; it must be the samples per second"),
        ({"rate": float("inf")}, "r: rate inf"),
        ({"label": 3}, "r: labels must be a tensor of whole numbers, found int"),
        ({"label": torch.zeros(12)}, "labels must be a tensor of whole numbers, found torch.float32"),
        ({"label": torch.full((12,), -1)}, "r: label -1; classes are numbered from 0"),
    ],
)
def test_parts_of_a_recording_of_wrong_kinds(change: dict[str, Any], message: str) -> None:
    """Samples of the class -1 were counted as class 0."""
    with pytest.raises(DataError, match=message):
        replace(recording(12), **change)


def test_recordings_by_numbers_of_any_kind() -> None:
    found = several()
    for index in (3, np.int64(3), torch.tensor(3), -7):
        assert found[index] is found.recordings[3]  # type: ignore[index]
    assert found[2:4].recordings == found.recordings[2:4]
    for several_of_them in ([3, 0], np.array([3, 0]), torch.tensor([3, 0])):
        assert found[several_of_them].recordings == (found[3], found[0])
    with pytest.raises(IndexError, match=r"recordings are numbered by whole numbers, found torch\.float32"):
        found[[0.5, 1.5]]
    for wrong in ("a", 1.5):
        with pytest.raises(TypeError, match="interpreted as an integer"):
            found[wrong]  # type: ignore[index]
