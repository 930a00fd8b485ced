"""HiSTN's protocols on files of DREAMER's structure, and what they must not look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eeg_files import dreamer
from eeg_signals import RATE, trials

from graphrec.errors import ConfigError, DataError
from graphrec.graph.eeg import EEGClassifier, subject_adapted, subject_dependent
from graphrec.graph.eeg.protocols import modal_labels
from graphrec.pipelines.eeg import (
    EEGSet,
    adaptation_split,
    last_seconds,
    make_windows,
    of_subject,
    read_dreamer,
)

FAST: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "model_options": {"kernel_length": 16, "momentum": 0.1, "dropout": 0.1},
}
NAMES = {"accuracy", "balanced_accuracy", "f1_weighted", "top2_accuracy", "tri_p", "seq2hr", "majority"}


def test_dreamers_file_runs_end_to_end(tmp_path: Path) -> None:
    path = dreamer(tmp_path / "DREAMER.mat", people=3, clips=5, samples=768)
    recordings = read_dreamer(path, "valence")
    assert [one.stimulus for one in recordings[:3]] == ["clip 1", "clip 2", "clip 3"]
    quick = {"epochs": 1, "batch_size": 64}
    folds = subject_dependent(recordings, "2", folds=3, seconds=6, stride=1.0, **quick)
    assert len(folds) == 3
    assert all(set(one) >= NAMES and all(v is not None for v in one.values()) for one in folds)
    drawn = subject_dependent(recordings, "2", folds=3, seconds=6, stride=1.0, crops=40, **quick)
    assert drawn[0]["majority"] < 0.5
    found = subject_adapted(
        recordings, "3", seconds=6, adapt_seconds=3, alone=True, options=quick, adapt_options=quick
    )
    assert set(found) == {"unadapted", "adapted", "alone"}
    assert all(set(one) >= NAMES for one in found.values())
    model = EEGClassifier(scaling="max_abs", epochs=1, validation=0.3).fit(path)
    assert model.classes_.tolist() == ["1", "2", "3", "4", "5"]
    assert model.predict(path, by="recording").shape == (15,)
    arousal = EEGClassifier(scaling="max_abs", epochs=1, validation=0.3)
    with pytest.raises(DataError, match="are of class '3'"):  # the file rates every clip alike
        arousal.fit(path, target="arousal")


def test_folds_learn_the_trials_of_a_subject() -> None:
    folds = subject_dependent(trials(1, 5, seconds=12), "1", folds=4, seconds=12, stride=0.25, **FAST)
    mean = {name: np.mean([one[name] for one in folds]) for name in NAMES}
    assert mean["majority"] == pytest.approx(0.2)
    assert mean["accuracy"] > 0.5
    assert mean["tri_p"] > 0.8
    assert mean["top2_accuracy"] >= mean["seq2hr"] > 0.5


def test_adapting_helps_where_a_subject_rates_the_other_way_round() -> None:
    recordings = trials(3, 5, seconds=10)
    turned = [replace(one, label=4 - one.label) if one.subject == "3" else one for one in recordings]
    shown = [replace(one, stimulus=f"level {int(one.label)}") for one in recordings]
    turned = [replace(one, stimulus=two.stimulus) for one, two in zip(turned, shown, strict=True)]
    found = subject_adapted(
        EEGSet(tuple(turned), recordings.classes, "turned"),
        "3",
        seconds=10,
        adapt_seconds=5,
        options=FAST,
        adapt_options={**FAST, "epochs": 20},
    )
    assert found["unadapted"]["accuracy"] < 0.45
    assert found["adapted"]["accuracy"] > found["unadapted"]["accuracy"] + 0.2


def test_the_rest_of_the_subject_is_not_looked_at() -> None:
    """Changing what is tested changes no prediction of an untouched part: nothing of it trained."""
    recordings = trials(2, 5, seconds=8)
    windows = make_windows(of_subject(recordings, "2"), int(RATE), 16)
    split = adaptation_split(windows, "2", samples=int(3 * RATE))
    used = windows.offset[split.train].max() + windows.length
    assert int(used) <= 3 * RATE
    assert int(windows.offset[split.test].min()) >= 3 * RATE
    changed = recordings.map(
        lambda one: (
            replace(one, signal=torch.cat([one.signal[:192], one.signal[192:] * 0 + 5]))
            if one.subject == "2"
            else one
        )
    )
    settings = {**FAST, "epochs": 1}
    ones = EEGClassifier(**settings, scaling="standard", validation=0.0)
    predictions = []
    for data in (recordings, changed):
        own = make_windows(of_subject(data, "2"), int(RATE), 16)
        part = split.__class__.of(split.train, [], [], len(own))
        ones.set_params(random_state=0).fit(own, split=part)
        predictions.append(ones.predict_proba(own)[split.train.numpy()])
    assert np.array_equal(*predictions)


def test_modal_labels() -> None:
    recordings = trials(3, 2, seconds=2)
    ratings = {
        ("1", "clip 1"): 4,
        ("2", "clip 1"): 1,
        ("3", "clip 1"): 4,
        ("1", "clip 2"): 3,
        ("2", "clip 2"): 0,
        ("3", "clip 2"): 2,
    }
    rated = recordings.map(lambda one: replace(one, label=torch.tensor(ratings[one.subject, one.stimulus])))
    assert [int(one.label) for one in modal_labels(rated)] == [
        4,
        0,
        4,
        0,
        4,
        0,
    ]  # of the tie 0, 2, 3 the lowest
    with pytest.raises(DataError, match="needs a stimulus"):
        modal_labels(recordings.map(lambda one: replace(one, stimulus="")))


def test_what_cannot_be_is_refused() -> None:
    recordings = trials(2, 2, seconds=4)
    with pytest.raises(ConfigError, match="subject='9': must be one of 1, 2"):
        subject_dependent(recordings, "9")
    with pytest.raises(ConfigError, match="subject='1': is the only one"):
        of_subject(of_subject(recordings, "1"), "1", others=True)
    with pytest.raises(DataError, match=r"subject 1, clip 1: lasts 4.0 s; 60 s are asked for"):
        subject_dependent(recordings, "1")
    cut = last_seconds(recordings, 1.5)
    assert torch.equal(cut[0].signal, recordings[0].signal[-96:])
