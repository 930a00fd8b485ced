"""Recordings from ARFF, MATLAB, EDF, FIF and tables; artefacts; montages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from eeg_files import dreamer, edf
from eeg_tools import recording, several
from graph_tools import write
from scipy.io import savemat

from graphrec.errors import ConfigError, DataError, MissingExtraError, SchemaError
from graphrec.pipelines.eeg import (
    EPOC,
    EEGSet,
    Montage,
    find_outliers,
    make_windows,
    max_abs,
    open_eeg,
    read_arff,
    read_dreamer,
    read_eeg_table,
    read_mat,
    read_raw_files,
    time_folds,
    treat_outliers,
)

ARFF = """@RELATION eeg
@ATTRIBUTE AF3 NUMERIC
@ATTRIBUTE F7 NUMERIC
@ATTRIBUTE eye {0,1}
@DATA
1.5,2,0
2.5,3,1
3.5,4,1
"""


@pytest.mark.parametrize("wrong", [[[1.0, 2.0], [3.0, 4.0]], [], (np.zeros((14, 128)),)])
def test_a_list_of_numbers_is_no_recording(wrong: Any) -> None:
    with pytest.raises(
        DataError, match=r"recordings: found a (list|tuple); give a path .* \(windows, channels"
    ):
        open_eeg(wrong)


def test_arff(tmp_path: Path) -> None:
    found = read_arff(write(tmp_path / "a.arff", ARFF), rate=128, label="eye", subject="p")
    assert found.channels == ("AF3", "F7")
    assert found.classes == (0, 1)
    assert found[0].signal.tolist() == [[1.5, 2.0], [2.5, 3.0], [3.5, 4.0]]
    assert found[0].label.tolist() == [0, 1, 1]
    assert read_arff(tmp_path / "a.arff", rate=128, channels=["F7"])[0].label is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ARFF.replace("2.5,3,1", "2.5,?,1"), "a.arff: row 2: channel F7 is not finite"),
        (ARFF.replace("2.5,3,1", "2.5,3,2"), "a.arff: cannot be read as ARFF"),
        (ARFF[:60], "a.arff: "),
        (ARFF.split("1.5")[0], "a.arff: holds no rows"),
    ],
)
def test_a_broken_arff_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((DataError, SchemaError), match=message):
        read_arff(write(tmp_path / "a.arff", text), rate=128, label="eye")


def test_an_attribute_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arff", ARFF)
    with pytest.raises(SchemaError, match="attribute 'eyes' is missing; it has AF3, F7, eye"):
        read_arff(path, rate=128, label="eyes")
    with pytest.raises(SchemaError, match="attribute 'eye' is nominal; a channel must be numeric"):
        read_arff(path, rate=128, channels=["eye"])


def test_matlab_matrices_and_trials(tmp_path: Path) -> None:
    path = tmp_path / "m.mat"
    trials = np.arange(24.0).reshape(3, 4, 2)
    savemat(path, {"trials": trials, "one": trials[0], "label": [2, 5, 2]})
    found = read_mat(path, signal="trials", rate=10, channels=["A", "B"], label="label", subject="p")
    assert len(found) == 3
    assert found.classes == (2, 5)
    assert [int(r.label) for r in found] == [0, 1, 0]
    assert found[2].signal.tolist() == trials[2].tolist()
    other = read_mat(path, signal="one", rate=10, channels=list("ABCD"), layout="channels_samples")
    assert other[0].signal.tolist() == trials[0].T.tolist()
    with pytest.raises(DataError, match="has 2 channels, 4 are named; layout='channels_samples'"):
        read_mat(path, signal="one", rate=10, channels=list("ABCD"))
    with pytest.raises(SchemaError, match="variable 'eeg' is missing; it has trials, one, label"):
        read_mat(path, signal="eeg", rate=10, channels=["A", "B"])
    with pytest.raises(DataError, match="label has 3 values for 4 samples"):
        read_mat(path, signal="one", rate=10, channels=["A", "B"], label="label")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"m.mat: cannot be read"):
        read_mat(path, signal="one", rate=10, channels=["A", "B"])


@pytest.mark.parametrize(("people", "clips"), [(3, 4), (1, 1), (2, 1)])
def test_dreamer(tmp_path: Path, people: int, clips: int) -> None:
    found = read_dreamer(dreamer(tmp_path / "d.mat", people, clips))
    assert len(found) == people * clips
    assert found.channels == EPOC.channels
    assert found.rate == 128
    assert found[0].subject == "1"
    assert [int(r.label) for r in found[:clips]] == [c % 5 for c in range(clips)]
    assert found[0].scores == {"valence": 1.0, "arousal": 3.0, "dominance": 5.0}
    assert found[0].baseline.shape == (512, 14)
    assert {int(r.label) for r in read_dreamer(tmp_path / "d.mat", "dominance")} == {4}


def test_dreamers_windows_are_cut_along_time(tmp_path: Path) -> None:
    scaled = max_abs(read_dreamer(dreamer(tmp_path / "d.mat")))
    assert torch.equal(scaled[0].signal.abs().amax(dim=0), torch.ones(14))
    windows = make_windows(scaled, 32, 8)
    folds = time_folds(windows, 10, last=480)
    assert all(len(windows.recording[f.test].unique()) == 12 for f in folds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ScoreValence": np.array([[1], [9], [2], [3]])}, "subject 1, clip 2: rating of valence is 9"),
        ({"ScoreArousal": np.array([[1], [2]])}, "subject 1, clip 1: rating of arousal is 1"),
        ({"EEG": {"baseline": 1}}, "subject 1: has no stimuli; it has baseline"),
    ],
)
def test_a_broken_dreamer_names_subject_and_clip(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises((DataError, SchemaError), match=message):
        read_dreamer(dreamer(tmp_path / "d.mat", **change))
    with pytest.raises(ConfigError, match="target='fear'"):
        read_dreamer(tmp_path / "d.mat", "fear")  # type: ignore[arg-type]


def test_edf(tmp_path: Path) -> None:
    pytest.importorskip("mne")
    signal = np.random.default_rng(0).normal(0, 100, (256, 2))
    paths = [edf(tmp_path / f"{n}.edf", signal, ["O1", "O2"], 64) for n in "ab"]
    found = read_raw_files(paths, subjects=["p", "q"], labels=[0, 1], classes=["rest", "task"])
    assert found.rate == 64
    assert [r.subject for r in found] == ["p", "q"]
    assert [int(r.label) for r in found] == [0, 1]
    assert (found[0].signal * 1e6 - torch.from_numpy(signal)).abs().max() < 0.05
    slower = read_raw_files(paths[0], rate=32, channels=[found.channels[1]])
    assert slower[0].signal.shape == (128, 1)
    with pytest.raises(DataError, match="subjects: 1 for 2 files"):
        read_raw_files(paths, subjects=["p"])
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    with pytest.raises(DataError, match=r"a.edf: cannot be read"):
        read_raw_files(paths[0])


def test_annotations_label_samples(tmp_path: Path) -> None:
    mne = pytest.importorskip("mne")
    raw = mne.io.RawArray(np.zeros((2, 40)), mne.create_info(["C3", "C4"], 10.0, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations([0.5, 2.0], [1.0, 1.5], ["left", "right"]))
    path = tmp_path / "one_raw.fif"
    raw.save(path, verbose="error")
    one = read_raw_files(path, events={"left": 0, "right": 1})[0]
    assert one.label[5:15].tolist() == [0] * 10
    assert one.label[20:35].tolist() == [1] * 15
    assert (~one.bad).nonzero().flatten().tolist() == [*range(5, 15), *range(20, 35)]
    with pytest.raises(DataError, match="no annotation is called foot; it has left, right"):
        read_raw_files(path, events={"foot": 0})


def test_without_mne_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mne", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'graphrec\[eeg\]'"):
        read_raw_files("x.edf")


WIDE = pl.DataFrame(
    {
        "who": ["p", "p", "p", "q", "q"],
        "trial": [1, 1, 1, 2, 2],
        "time": [0.0, 0.1, 0.2, 0.0, 0.1],
        "C3": [1.0, 2.0, 3.0, 4.0, 5.0],
        "C4": [6.0, 7.0, 8.0, 9.0, 10.0],
        "state": ["calm", "calm", "calm", "fear", "fear"],
    }
)
COLUMNS: dict[str, Any] = {
    "rate": 10,
    "recording": "trial",
    "subject": "who",
    "label": "state",
    "time": "time",
}


def test_tables(tmp_path: Path) -> None:
    WIDE.write_parquet(tmp_path / "eeg.parquet")
    found = read_eeg_table(tmp_path / "eeg.parquet", **COLUMNS)
    assert [len(r) for r in found] == [3, 2]
    assert [r.subject for r in found] == ["p", "q"]
    assert found[1].signal.tolist() == [[4.0, 9.0], [5.0, 10.0]]
    assert found[1].label.tolist() == [1, 1]
    assert found.classes == ("calm", "fear")
    tall = WIDE.unpivot(["C3", "C4"], index=["who", "trial", "time", "state"], variable_name="channel")
    again = read_eeg_table(tall, channel="channel", value="value", **COLUMNS)
    assert all(torch.equal(a.signal, b.signal) for a, b in zip(found, again, strict=True))
    assert read_eeg_table(WIDE.select("C4"), rate=10)[0].signal.shape == (5, 1)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (WIDE.with_columns(C4=pl.Series([1.0, None, 1.0, 1.0, 1.0])), "row 2: column 'C4' is null, NaN"),
        (
            WIDE.with_columns(time=pl.Series([0.0, 0.1, 0.4, 0.0, 0.1])),
            "row 3: 0.3 s after the row before, not 1/10",
        ),
        (WIDE.with_columns(time=pl.Series([0.0, 0.1, 0.0, 0.0, 0.1])), "row 3: -0.1 s after"),
        (WIDE.with_columns(who=pl.Series(["p", "p", "q", "q", "q"])), "row 3: the subject changes within"),
        (WIDE.with_columns(trial=pl.Series([1, 1, 2, 2, 1])), "row 5: recording 1 begins again"),
        (
            WIDE.with_columns(state=pl.Series(["a", "b", None, "a", "b"])),
            "row 3: column 'state' has no label",
        ),
        (WIDE.drop("who"), "column 'who' is missing"),
    ],
)
def test_a_broken_table_names_the_row(frame: pl.DataFrame, message: str) -> None:
    options = COLUMNS | ({"time": None} if "begins" in message or "subject" in message else {})
    with pytest.raises((DataError, SchemaError), match=message):
        read_eeg_table(frame, **options)


def spiked() -> EEGSet:
    one = recording(100)
    one.signal[40, 1] = 1e6
    return EEGSet((one,), ("0",))


def test_outliers_are_found_and_treated() -> None:
    found = find_outliers(spiked()[0])
    assert found.nonzero().tolist() == [[40, 1]]
    for how, value in (("interpolate", 1040.0), ("clip", None), ("mark", 1e6)):
        treated, notes = treat_outliers(spiked(), how)  # type: ignore[arg-type]
        assert notes == [f"r: 1 samples beyond 20 robust deviations (rows 41): {how}"]
        assert len(treated[0]) == 100
        assert value is None or float(treated[0].signal[40, 1]) == value
        assert float(treated[0].signal[40, 0]) == 40.0
    clipped = treat_outliers(spiked(), "clip")[0][0].signal[40, 1]
    assert 1100 < float(clipped) < 2000
    marked = treat_outliers(spiked(), "mark")[0]
    assert marked[0].bad.nonzero().flatten().tolist() == [40]
    assert max_abs(marked)[0].signal[99, 1] == 1.0
    with pytest.raises(DataError, match=r"rows 41\); choose interpolate"):
        treat_outliers(spiked(), "refuse")
    with pytest.raises(ConfigError, match="how='drop'"):
        treat_outliers(spiked(), "drop")  # type: ignore[arg-type]
    assert treat_outliers(several(), "mark")[1] == []


def test_sets_must_be_of_one_kind() -> None:
    with pytest.raises(DataError, match="b: 3 channels at 10 Hz"):
        EEGSet((recording(5), recording(5, name="b", channels=3)), ("0",))
    with pytest.raises(DataError, match="r: class 0, and classes names 0"):
        EEGSet((recording(5),))
    with pytest.raises(DataError, match="channel Z is missing; it has A, B"):
        recording(5).pick(["Z"])
    assert recording(5).pick(["b"]).signal[0].tolist() == [1000.0]
    with pytest.raises(DataError, match="row 2: channel B is not finite"):
        replace(recording(2), signal=torch.tensor([[0.0, 0.0], [0.0, float("nan")]]))


def test_montages() -> None:
    assert "-".join(EPOC.channels) == "AF3-F7-F3-FC5-T7-P7-O1-O2-P8-T8-FC6-F4-F8-AF4"
    assert EPOC.bounds == (0, 4, 7, 10, 14)
    left, right = EPOC.adjacency(0), EPOC.adjacency(3)
    assert left.nonzero().tolist() == [[0, 2], [1, 2], [1, 3], [2, 0], [2, 1], [2, 3], [3, 1], [3, 2]]
    assert torch.equal(right, left.flip(0, 1))
    assert EPOC.region_adjacency().sum(0).tolist() == [2.0] * 4
    assert set(EPOC.positions or {}) == set(EPOC.channels)
    made = Montage.from_regions({"front": ["F3", "Fz", "F4"], "back": ["O1", "O2"]})
    assert made.adjacency(0).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert made.region_adjacency().tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ConfigError, match="electrode F3 occurs twice"):
        Montage.from_regions({"a": ["F3"], "b": ["F3"]})
    with pytest.raises(ConfigError, match=r"region a: edge \('F3', 'F9'\)"):
        Montage.from_regions({"a": ["F3", "F4"]}, edges={"a": [("F3", "F9")]})
