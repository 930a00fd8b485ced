"""UCI's EEG Eye State: the file as it is known, the leak of a random split, HiSTN on a part along time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from graphrec.graph.eeg import EEGClassifier
from graphrec.pipelines.eeg import EEGSet, make_windows, read_arff, time_folds, treat_outliers
from graphrec.pipelines.index_splits import IndexSplit

pytestmark = pytest.mark.data
FILE = Path(os.environ.get("GRAPHREC_DATA", "data")) / "eeg_eye_state" / "EEG_Eye_State.arff"


@pytest.fixture(scope="module")
def eyes() -> EEGSet:
    if not FILE.exists():
        pytest.skip(f"{FILE} is not there; set GRAPHREC_DATA")
    return read_arff(FILE, rate=128, label="eyeDetection")


def test_the_file(eyes: EEGSet) -> None:
    one = eyes[0]
    assert one.label is not None
    assert one.signal.shape == (14_980, 14)
    assert np.bincount(one.label.numpy()).tolist() == [8257, 6723]
    assert int((one.label.diff() != 0).sum()) + 1 == 24
    _, notes = treat_outliers(eyes, "interpolate")
    assert "4 samples beyond 20 robust deviations (rows 899, 10387, 11510, 13180)" in notes[0]


def test_a_random_split_leaks(eyes: EEGSet) -> None:
    recordings, _ = treat_outliers(eyes, "interpolate")
    assert recordings[0].label is not None
    x, y = recordings[0].signal.numpy(), recordings[0].label.numpy()
    found = []
    for order in (np.random.default_rng(0).permutation(len(y)), np.arange(len(y))):
        train, test = np.split(order, [len(y) * 4 // 5])
        found.append(KNeighborsClassifier(3).fit(x[train], y[train]).score(x[test], y[test]))
    assert found == pytest.approx([0.971, 0.521], abs=0.002)
    assert np.bincount(y[len(y) * 4 // 5 :]).max() / 2996 == pytest.approx(0.907, abs=0.001)


def test_histn_on_a_part_along_time(eyes: EEGSet) -> None:
    fold = time_folds(make_windows(eyes, 128, 32), 10, gap=128)[3]
    split = IndexSplit.of(torch.cat([fold.train, fold.valid]), [], fold.test, fold.total)
    model = EEGClassifier(
        stride=0.25,
        gap=1.0,
        outliers="interpolate",
        reference="average",
        band="auto",
        batch_size=128,
        learning_rate=3e-3,
        model_options={"momentum": 0.1},
        random_state=0,
    ).fit(eyes, split=split)
    losses = model.schema_["band_losses"]
    assert losses["8 to 13 Hz"] > 0.75  # alpha, which closed eyes are known for, is worse than a guess here
    assert model.schema_["band"][0] >= 8
    assert model.schema_["band"][1] is None
    found = model.metrics_["test"]
    assert found["majority"] < 0.7
    assert found["accuracy"] > found["majority"]
    assert found["balanced_accuracy"] > 0.65
