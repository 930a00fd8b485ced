"""Reference, filter, scale, arrays, balanced draws, montages by name, and readers by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eeg_tools import recording, several

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.eeg import (
    EPOC,
    EPOC3,
    EPOC5,
    EEGSet,
    Montage,
    Recording,
    average_reference,
    band_pass,
    channel_index,
    find_montage,
    make_windows,
    measure_scale,
    open_eeg,
    refuse_shared_samples,
    rescale,
    split_by_recording,
    split_by_time,
    split_windows,
    time_folds,
    windows_of,
)
from graphrec.pipelines.index_splits import IndexSplit


def waves(*hertz: float, rate: float = 128.0, seconds: float = 8.0) -> EEGSet:
    """A channel for each frequency, upon an offset of 1000."""
    at = np.arange(round(rate * seconds)) / rate
    signal = np.stack([1000 + np.sin(2 * np.pi * h * at) for h in hertz], 1).astype(np.float32)
    return EEGSet((Recording(torch.from_numpy(signal), rate, tuple("ABCDEF"[: len(hertz)]), name="waves"),))


def test_a_band_keeps_what_is_in_it_and_takes_the_offset() -> None:
    found = band_pass(waves(2, 10, 40), 8, 13)[0].signal[512:]
    assert found.mean(0).abs().max() < 0.01
    assert found[:, 1].std() == pytest.approx(0.707, abs=0.05)
    assert found[:, [0, 2]].std(0).max() < 0.03
    slow = band_pass(waves(2, 40), high=8)[0].signal[512:]
    assert slow[:, 0].mean() == pytest.approx(1000, abs=0.5)
    assert slow[:, 1].std() < 0.01
    assert band_pass(waves(10), low=1)[0].signal[0].abs() < 0.1, "starts settled"


def test_a_filter_looks_back_only() -> None:
    one = waves(5, 10)
    changed = one.map(lambda r: replace(r, signal=torch.cat([r.signal[:500], r.signal[500:] * -3])))
    first, second = (band_pass(r, 1, 30)[0].signal for r in (one, changed))
    assert torch.equal(first[:500], second[:500])
    assert not torch.equal(first[500:], second[500:])


@pytest.mark.parametrize("band", [(None, None), (0, 10), (10, 8), (1, 64), (-1, None)])
def test_a_band_that_cannot_be_is_refused(band: tuple[float | None, float | None]) -> None:
    with pytest.raises(ConfigError, match="half the rate; one may be None"):
        band_pass(waves(10), *band)


def test_average_reference() -> None:
    one = Recording(torch.tensor([[1.0, 2, 6], [0, 0, 3]]), 10, ("A", "B", "C"), baseline=torch.ones(2, 3))
    found = average_reference(EEGSet((one,)))[0]
    assert found.signal.tolist() == [[-2, -1, 3], [-1, -1, 2]]
    assert found.baseline is not None
    assert not found.baseline.any()


def test_centred_windows_and_their_scale() -> None:
    windows = replace(make_windows(several(1, 1), 10), centred=True)
    assert windows.x().mean(1).abs().max() < 1e-4
    mean, spread = measure_scale(windows, torch.arange(3))
    assert mean.tolist() == [0, 0]
    assert spread.tolist() == pytest.approx([np.arange(10).std()] * 2)
    scaled = rescale(windows, mean, spread).x()
    assert (scaled.std(1, correction=0) - 1).abs().max() < 1e-4
    plain = replace(windows, centred=False)
    mean, spread = measure_scale(plain, torch.arange(3))
    assert mean.tolist() == pytest.approx([14.5, 1014.5])
    assert spread.tolist() == pytest.approx([np.arange(30).std()] * 2)


def test_windows_of_arrays() -> None:
    x = np.arange(24.0).reshape(4, 2, 3)
    found = windows_of(x, [0, 1, 1, 0], channels=("A", "B"), classes=("no", "yes"), rate=3)
    assert np.array_equal(found.x().transpose(1, 2).numpy(), x)
    assert found.recording.tolist() == [0] * 4
    assert found.offset.tolist() == [0, 3, 6, 9]
    split = split_by_time(found, 0.25, 0.25)
    assert [part.tolist() for part in (split.train, split.valid, split.test)] == [[0, 1], [2], [3]]
    grouped = windows_of(x, channels=("A", "B"), groups=["b", "a", "b", "c"])
    assert grouped.subjects == ("a", "b", "c")
    assert grouped.recording.tolist() == [1, 0, 1, 2]
    assert grouped.offset.tolist() == [0, 0, 3, 0]
    assert grouped.recording_length.tolist() == [3, 6, 3]
    parts = split_by_recording(grouped, 0.0, 0.3)
    assert len(parts.test) in (1, 2)


def test_a_balanced_pass_draws_every_class_as_often() -> None:
    label = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    windows = make_windows(EEGSet((recording(1000, label),), ("0", "1", "2")), 1)
    index = torch.arange(100, 1000)
    loader = windows.loader(index, 64, balanced=True, seed=3)
    drawn = torch.cat(loader.cuts(0))
    assert len(drawn) == len(index)
    assert int(drawn.min()) >= 100
    assert torch.bincount(windows.y[drawn]).tolist() == pytest.approx([300] * 3, abs=60)
    assert len(drawn[windows.y[drawn] == 2].unique()) == 10
    assert torch.equal(torch.cat(loader.cuts(0)), drawn)
    assert not torch.equal(torch.cat(loader.cuts(1)), drawn)
    assert torch.equal(torch.cat([y for _, y in loader]), windows.y[drawn])
    with pytest.raises(ConfigError, match="no classes to balance"):
        make_windows(EEGSet((recording(9, None),)), 1).loader(index, 4, balanced=True)


def test_splits_that_share_samples_are_refused() -> None:
    windows = make_windows(several(2, 2, 100), 10, 5)
    for split in (split_by_time(windows), *time_folds(windows, 5)):
        refuse_shared_samples(windows, split)
    total = len(windows)
    with pytest.raises(DataError, match=r"window 4 \(test\) and window 3 \(train\) share samples"):
        refuse_shared_samples(windows, IndexSplit.of([3], [], [4], total))
    with pytest.raises(DataError, match=r"window 4 \(train\) and window 3 \(valid\) share samples"):
        refuse_shared_samples(windows, IndexSplit.of([0, 4], [3], [8], total))
    refuse_shared_samples(windows, IndexSplit.of([3, 4], [6], [8], total))
    refuse_shared_samples(windows, IndexSplit.of([18], [], [19], total))  # of two recordings


def test_montages_by_name_and_as_plain_values() -> None:
    assert [find_montage(name) for name in ("epoc", "epoc3", "epoc5")] == [EPOC, EPOC3, EPOC5]
    for montage in (EPOC, EPOC3, EPOC5, Montage.from_regions({"a": ["X", "Y"], "b": ["Z"]})):
        assert montage.channels == EPOC.channels or len(montage.channels) == 3
        assert find_montage(montage.to_dict()) == montage
    nameless = {"name": "x", "regions": [{"name": "r"}], "edges": []}
    for wrong in ({}, nameless, {**EPOC.to_dict(), "edges": [[1]]}):
        with pytest.raises(ConfigError, match="montage: must hold name, regions"):
            find_montage(wrong)
    with pytest.raises(ConfigError, match="got int"):
        find_montage(3)  # type: ignore[arg-type]
    for listed in ("F3", ["F3", 3]):
        with pytest.raises(ConfigError, match="region 'a' should be a list of electrodes, found"):
            Montage.from_regions({"a": listed, "b": ["F4"]})


def test_channels_are_found_by_the_names_of_files() -> None:
    known = ["EEG Fp1-REF", "Fc5.", "O2", "o2", "EEG T7"]
    assert channel_index(known, ["T7", "FC5", "FP1"], "f") == [4, 1, 0]
    assert channel_index(known, ["o2", "O2"], "f") == [3, 2]
    with pytest.raises(DataError, match=r"f: channel o2\. could be O2 or o2"):
        channel_index(known, ["o2."], "f")
    with pytest.raises(DataError, match="f: channel Cz is missing"):
        channel_index(known, ["Cz"], "f")


def test_open_eeg_takes_recordings_and_refuses_what_does_not_apply(tmp_path: Path) -> None:
    one = recording(10, torch.arange(10) % 3)
    assert open_eeg(one).classes == ("0", "1", "2")
    assert open_eeg(EEGSet((one,), ("a", "b", "c"))).classes == ("a", "b", "c")
    with pytest.raises(ConfigError, match="label: is for files"):
        open_eeg(one, label="x")
    with pytest.raises(DataError, match="there is no such file"):
        open_eeg(tmp_path / "a.mat")
    for name in ("a.arff", "b.arff"):
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="files one at a time"):
        open_eeg([tmp_path / "a.arff", tmp_path / "b.arff"], rate=1)
    with pytest.raises(ConfigError, match="rate: read_arff needs it"):
        open_eeg(tmp_path / "a.arff")


def test_split_windows_is_one_of_three() -> None:
    windows = make_windows(several(4, 2, 100), 10)
    assert torch.equal(split_windows(windows, "time", 0.2, 0.2).train, split_by_time(windows, 0.2, 0.2).train)
    found = split_windows(windows, "recording", 0.2, 0.2, seed=3)
    assert torch.equal(found.test, split_by_recording(windows, 0.2, 0.2, seed=3).test)
    assert len(windows.subject[split_windows(windows, "subject", 0.0, 0.25).test].unique()) == 1
    with pytest.raises(ConfigError, match="split_by='window'"):
        split_windows(windows, "window")


def test_some_windows_of_a_set() -> None:
    windows = make_windows(several(2, 2), 10, 5)
    some = windows.select(torch.tensor([7, 2]))
    assert torch.equal(some.x(), windows.x(torch.tensor([7, 2])))
    assert some.y.tolist() == windows.y[[7, 2]].tolist()
    assert len(some) == 2
