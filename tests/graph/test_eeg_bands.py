"""The choice of a band: candidates, folds that share nothing, what the estimator takes, keeps and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eeg_signals import RATE, rests, trials

from graphrec.errors import ConfigError, DataError
from graphrec.graph.eeg import EEGClassifier, band_losses, candidate_bands, log_powers
from graphrec.graph.eeg.bands import _folds
from graphrec.pipelines.eeg import EEGSet, Windows, band_pass, band_pass_windows, make_windows
from graphrec.pipelines.index_splits import IndexSplit


def as_set(seed: int = 0) -> EEGSet:
    return EEGSet((rests(seed=seed),), ("0", "1"), "rests")


def cut(recordings: EEGSet) -> list[tuple[str, Windows]]:
    bands = candidate_bands(recordings.rate)
    return [(name, make_windows(band_pass(recordings, *band), 64, 16)) for name, band in bands.items()]


def quick(**change: Any) -> EEGClassifier:
    options = {"kernel_length": 16, "momentum": 0.1}
    return EEGClassifier(
        **{
            "epochs": 1,
            "validation": 0.25,
            "stride": 0.5,
            "model_options": options,
            "random_state": 0,
            **change,
        }
    )


def test_candidates_are_runs_of_neighbouring_bands_below_half_the_rate() -> None:
    assert list(candidate_bands(128))[:6] == [
        "1 to 4 Hz",
        "1 to 8 Hz",
        "1 to 13 Hz",
        "1 to 30 Hz",
        "from 1 Hz",
        "4 to 8 Hz",
    ]
    assert len(candidate_bands(128)) == 15
    assert candidate_bands(128)["from 13 Hz"] == (13, None)
    assert set(candidate_bands(20)) == {
        "1 to 4 Hz",
        "1 to 8 Hz",
        "from 1 Hz",
        "4 to 8 Hz",
        "from 4 Hz",
        "from 8 Hz",
    }


def test_log_powers_are_the_variances_of_windows() -> None:
    windows = make_windows(as_set(), 64, 32)
    assert log_powers(windows) == pytest.approx(np.log(windows.x().double().var(1).numpy()))
    silent = replace(windows, signal=torch.zeros_like(windows.signal))
    assert np.isfinite(log_powers(silent)).all()


def test_the_rhythm_of_10_hertz_wins_and_what_does_not_train_has_no_say() -> None:
    recordings = as_set()
    bands = cut(recordings)
    train = torch.arange(len(bands[0][1]) // 2)
    losses = band_losses(bands, train)
    low, high = candidate_bands(RATE)[min(losses, key=losses.__getitem__)]
    assert low <= 10 <= (high or 32)
    assert losses["8 to 13 Hz"] < 0.1 < 0.5 < losses["1 to 4 Hz"]
    for _, windows in bands:
        assert windows.y is not None
        windows.y[len(train) :] = 0
        windows.signal[int(windows.start[train[-1]]) + windows.length :] = 7.0
    assert band_losses(bands, train) == losses


@pytest.mark.parametrize("gap", [0, 40])
def test_no_window_that_fits_is_near_one_that_is_held_out(gap: int) -> None:
    two = EEGSet((rests(6), rests(6, seed=1)), ("0", "1"), "two")
    windows = make_windows(two, 64, 16)
    train = torch.arange(7, len(windows) - 9)
    held_at_all: list[int] = []
    for fit, held in _folds(windows, train, "time", gap):
        assert len(fit) > len(held) / 2
        assert set(fit) | set(held) <= set(train.tolist())
        for i in held:
            near = (windows.recording[fit] == windows.recording[i]) & (
                (windows.offset[fit] - windows.offset[i]).abs() < 64 + gap
            )
            assert not near.any()
        held_at_all += held.tolist()
    assert sorted(held_at_all) == train.tolist()


@pytest.mark.parametrize("by", ["recording", "subject"])
def test_whole_recordings_or_subjects_are_held_out(by: str) -> None:
    windows = make_windows(trials(people=4, classes=2), 64)
    group = getattr(windows, by)
    for fit, held in _folds(windows, torch.arange(len(windows)), by, 0):
        assert not set(group[fit].tolist()) & set(group[held].tolist())


def test_the_estimator_chooses_keeps_and_reloads_its_band(tmp_path: Path) -> None:
    one = rests()
    model = quick(band="auto").fit(one)
    losses, band = model.schema_["band_losses"], model.schema_["band"]
    assert tuple(band) == candidate_bands(RATE)[min(losses, key=losses.__getitem__)]
    assert band[0] <= 10 <= (band[1] or np.inf)
    known = quick(band=band).fit(one)
    other = rests(seed=3)
    assert np.array_equal(model.predict_proba(other), known.predict_proba(other))
    model.save(tmp_path / "m")
    again = EEGClassifier.load(tmp_path / "m")
    assert again.schema_["band_losses"] == losses
    assert np.array_equal(again.predict_proba(other), model.predict_proba(other))
    tuned = quick(band="auto").fit(other, source=model)
    assert tuned.schema_["band"] == band
    assert "band_losses" not in tuned.schema_


def test_the_part_that_tests_does_not_choose() -> None:
    one = rests()
    assert one.label is not None
    windows = make_windows(EEGSet((one,), ("0", "1")), 64, 32)
    split = IndexSplit.of(torch.arange(100), [], torch.arange(110, len(windows)), len(windows))
    turned = replace(one, label=torch.where(torch.arange(len(one)) < 107 * 32, one.label, 1 - one.label))
    found = [quick(band="auto").fit(x, split=split).schema_["band_losses"] for x in (one, turned)]
    assert found[0] == found[1]


def test_an_unknown_band_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"band='alpha': must be \(low, high\) in hertz, 'auto' or None"):
        quick(band="alpha").fit(rests())


def test_windows_of_whole_recordings_are_filtered_as_before_cutting() -> None:
    one, other = rests(), rests(6, seed=3)
    both = EEGSet((one, other), ("0", "1"), "two")
    windows = make_windows(both, 64, 32)
    filtered = band_pass_windows(windows, 8, 13)
    assert torch.equal(filtered.signal, torch.cat([r.signal for r in band_pass(both, 8, 13)]))
    known, found = quick(band="auto").fit(both), quick(band="auto").fit(windows)
    assert found.schema_["band_losses"] == known.schema_["band_losses"]
    assert np.array_equal(found.predict_proba(windows), known.predict_proba(both))


def test_other_windows_cannot_be_filtered() -> None:
    x = np.random.default_rng(0).normal(size=(40, 14, 64))
    for band in ("auto", (8, 13)):
        with pytest.raises(ConfigError, match=r"band: needs whole recordings, and .* is windows"):
            quick(band=band).fit(x, np.repeat([0, 1], 20), rate=64)


def test_losses_need_labels_and_both_classes() -> None:
    windows = make_windows(as_set(), 64)
    with pytest.raises(DataError, match="has no labels"):
        band_losses([("all", replace(windows, y=None))], torch.arange(10))
    with pytest.raises(DataError, match="5 training windows from 1 tenths of recordings are too few"):
        band_losses([("all", windows)], torch.arange(5))
    y = torch.zeros(len(windows), dtype=torch.int64)
    y[:3] = 1
    with pytest.raises(DataError, match="holds all of a class"):
        band_losses([("all", replace(windows, y=y))], torch.arange(len(windows)))
    with pytest.raises(ConfigError, match="by='window'"):
        band_losses([("all", windows)], torch.arange(10), by="window")
