"""What `EEGClassifier` refuses, each by its name: recordings, labels, settings, splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from eeg_signals import RATE, frame, quick, rests
from sklearn.exceptions import NotFittedError

from graphrec.errors import ConfigError, DataError, GraphrecError, RunError, SchemaError
from graphrec.graph.eeg import EEGClassifier
from graphrec.pipelines.eeg import EEGSet, make_windows, split_by_time
from graphrec.pipelines.index_splits import IndexSplit, random_parts


@pytest.fixture(scope="module")
def fitted() -> EEGClassifier:
    return quick(epochs=8).fit(rests())


def test_labels_that_say_nothing_are_not_learned() -> None:
    one = rests()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = replace(one, label=one.label.view(12, -1)[order].reshape(-1))
    found = quick(epochs=8).fit(shuffled).evaluate(rests(seed=7))
    assert found["balanced_accuracy"] < 0.9


def test_a_random_split_of_overlapping_windows_is_refused() -> None:
    windows = make_windows(EEGSet((rests(),), ("0", "1")), 64, 32)
    assert windows.y is not None
    with pytest.raises(
        DataError, match=r"window \d+ \(\w+\) and window \d+ \(\w+\) share samples, so one gives"
    ):
        quick().fit(windows, split=random_parts(windows.y, valid=0.2, test=0.2, seed=0))
    quick(epochs=1).fit(windows, split=split_by_time(windows, 0.2, 0.2))
    alone = IndexSplit.of(range(0, len(windows), 2), [], [], len(windows))
    quick(epochs=1).fit(windows, split=alone)


BAD: list[tuple[Any, dict[str, Any], type[GraphrecError], str]] = [
    ("nowhere.arff", {"rate": 128}, DataError, "nowhere.arff: there is no such file"),
    ("nowhere.edf", {}, DataError, "nowhere.edf: there is no such file"),
    ("nowhere.parquet", {"rate": 128}, DataError, "nowhere.parquet"),
    (rests(2), {"rate": 64}, ConfigError, "rate: is for files and tables"),
    (np.zeros((4, 13, 64)), {"y": [0, 1, 0, 1]}, DataError, "X: has 13 channels, 14 are expected"),
    (np.zeros((4, 14)), {"y": [0, 1, 0, 1]}, DataError, r"X: has shape \(4, 14\)"),
    (np.zeros((4, 14, 64)), {"y": [0, 1]}, DataError, "y has shape"),
    (np.zeros((2, 14, 64)), {"y": [0, np.nan]}, DataError, "y: row 1 has no label"),
    (np.full((2, 14, 64), "a"), {"y": [0, 1]}, DataError, "X: holds <U1; must be numbers"),
    (
        np.full((2, 14, 64), 1e300),
        {"y": [0, 1]},
        DataError,
        "X: window 0, channel AF3, sample 0 is not finite",
    ),
    (np.zeros((2, 14, 64)), {"y": [0, 1j]}, DataError, "y: holds complex128"),
    (np.zeros((2, 14, 64)), {"y": [0, 1], "groups": [1, None]}, DataError, "groups: window 1 has none"),
    (np.zeros((2, 14, 64)), {"y": [0, 1], "groups": np.array([1, "a"], object)}, DataError, "groups: are of"),
    (np.zeros((2, 14, 64)), {"y": [0, 1], "rate": 0}, DataError, "rate=0: must be samples per second"),
    (np.zeros((2, 14, 64)), {"y": [0, 1], "rate": "x"}, DataError, "rate='x': must be samples per second"),
    (None, {}, DataError, "recordings: found a NoneType; give a path"),
    (3, {"rate": 64}, DataError, "recordings: found a int; give a path"),
    (np.zeros((4, 14, 64)), {}, DataError, "X: has no labels"),
    (np.zeros((4, 14, 64)), {"y": [1, 1, 1, 1]}, DataError, "are of class '1'; a classifier needs two"),
    (
        np.zeros((4, 14, 64)),
        {"y": [0, 1, 0, 1], "label": "eye"},
        ConfigError,
        "label: is for files and tables",
    ),
    (np.zeros((1, 14, 64)), {"y": [0]}, DataError, "no window falls into"),
    (np.zeros((12, 14, 5)), {"y": [0, 1] * 6}, DataError, "6 or more samples"),
]


@pytest.mark.parametrize(("source", "how", "error", "message"), BAD, ids=[case[-1] for case in BAD])
def test_bad_input_is_named(
    source: Any,
    how: dict[str, Any],
    error: type[GraphrecError],
    message: str,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        quick().fit(source, **how)


def test_bad_values_are_named(fitted: EEGClassifier, tmp_path: Path) -> None:
    holed = np.random.default_rng(0).normal(size=(4, 14, 64))
    holed[2, 6, 10] = np.nan
    with pytest.raises(DataError, match="X: window 2, channel O1, sample 10 is not finite"):
        quick().fit(holed, [0, 1, 0, 1])
    table = frame(rests(2).signal, rests(2).label)
    broken = [None if i == 3 else v for i, v in enumerate(table["P7"].to_list())]
    with pytest.raises(DataError, match=r"row 4.*P7"):
        quick().fit(table.with_columns(P7=pl.Series(broken)), rate=RATE, label="eye")
    with pytest.raises(DataError, match="channel AF3 is missing"):
        quick().fit(table.rename({"AF3": "AF30"}), rate=RATE, label="eye")
    with pytest.raises(SchemaError, match="column 'eyes'"):
        quick().fit(table, rate=RATE, label="eyes")
    with pytest.raises(ConfigError, match="rate: read_eeg_table needs it"):
        quick().fit(table, label="eye")
    with pytest.raises(ConfigError, match="lable: read_eeg_table has no such option"):
        quick().fit(table, rate=RATE, lable="eye")
    with pytest.raises(DataError, match="no window of 64 samples fits; the longest recording has 40"):
        quick().fit(table.head(40), rate=RATE, label="eye")
    with pytest.raises(DataError, match="class 2 was not fitted; fitted were 0, 1"):
        fitted.evaluate(table.with_columns(eye=pl.lit(2)), rate=RATE, label="eye")
    with pytest.raises(DataError, match="has 128 samples per second, fitted were 64; resample"):
        fitted.predict(table, rate=128)
    whole = rests(2)
    short = replace(whole, signal=whole.signal[:30], label=None)
    with pytest.raises(DataError, match="recording 1 of 2 holds no window of 64 samples"):
        fitted.predict(EEGSet((replace(whole, label=None), short)), by="recording")
    unlabelled = replace(whole, label=None)
    assert len(fitted.predict(unlabelled)) == len(fitted.windows(unlabelled))
    with pytest.raises(DataError, match="has no labels"):
        fitted.score(unlabelled)


def test_labels_of_another_file_count_the_fitted_classes(fitted: EEGClassifier) -> None:
    """A file that holds only the second class: its code 0 is not the first class."""
    one = rests(2, seed=9)
    half = len(one) // 2
    only = replace(one, signal=one.signal[half:], label=torch.zeros(half, dtype=torch.int64))
    assert fitted.score(EEGSet((only,), ("1",))) > 0.8
    assert fitted.score(EEGSet((only,), ("0",))) < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "mastoid"}, "reference='mastoid'"),
        ({"scaling": "minmax"}, "scaling='minmax'"),
        ({"band": (30, 10)}, r"band=\(30, 10\)"),
        ({"band": (1, 40)}, "half the rate"),
        ({"band": (1,)}, "must be \\(low, high\\)"),
        ({"outliers": "drop"}, "how='drop'"),
        ({"window": 0}, "window=0"),
        ({"window": "a"}, "window='a', stride=0.5: must be seconds"),
        ({"stride": float("inf")}, "stride=inf: must be seconds"),
        ({"gap": "x"}, "gap='x': must be a finite number from 0"),
        ({"band": 5}, "band=5: must be"),
        ({"band": ("a", 3)}, r"band=\('a', 3\): must be"),
        ({"centre": "no"}, "centre='no': must be true or false"),
        ({"balanced": "no"}, "balanced='no': must be true or false"),
        ({"model": 3}, "model: should be a name, got 3"),
        ({"random_state": -1}, "random_state=-1: must be a seed"),
        ({"model_options": {"kernel_length": "a"}}, "kernel_length='a': must be a whole number"),
        ({"model_options": {"momentum": "a"}}, "momentum='a': must be a finite number"),
        ({"split_by": "window"}, "split_by='window'"),
        ({"class_weight": "even"}, "class_weight='even'"),
        ({"montage": "epoc4"}, "montage='epoc4': must be one of epoc, epoc3, epoc5"),
        ({"montage": {"name": "x"}}, "montage: must hold name, regions"),
        ({"model": "gcn"}, "model='gcn': is for graph"),
        ({"model_options": {"dropuot": 1}}, "dropuot: histn has no such option"),
        ({"monitor": "kappa"}, "kappa"),
    ],
)
def test_arguments_that_do_not_exist_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(**change).fit(rests(4))


def test_windows_cannot_be_filtered_or_treated_afterwards() -> None:
    cut = np.zeros((8, 14, 64))
    for change, message in (
        ({"band": (1, 20)}, "band: needs whole recordings"),
        ({"outliers": "clip"}, "outliers: needs whole recordings"),
        ({"scaling": "max_abs"}, "scaling='max_abs': needs whole recordings"),
    ):
        with pytest.raises(ConfigError, match=message):
            quick(**change).fit(cut, [0, 1] * 4)


def test_windows_to_judge_are_named_by_numbers_or_a_mask() -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 14, 64)), np.arange(12) % 2
    model = quick(epochs=1).fit(x, y)
    assert model.evaluate(x, y, index=y == 1) == model.evaluate(x, y, index=[1, 3, 5, 7, 9, 11])
    for index, message in (
        ([99], "numbers from 0 to 11, found 99"),
        ([-1], "numbers from 0 to 11, found -1"),
        ([0.5], "index: should be a mask"),
        ([True], "index: should be a mask"),
        ([], "index: names no window"),
    ):
        with pytest.raises(DataError, match=message):
            model.evaluate(x, y, index=index)


def test_what_a_network_can_begin_with_and_keep(fitted: EEGClassifier) -> None:
    with pytest.raises(ConfigError, match="source: must be a fitted EEGClassifier, got str"):
        quick().fit(rests(2), source="m")  # type: ignore[arg-type]
    for unfitted in (lambda: quick().fit(rests(2), source=quick()), lambda: quick().plot_gates(rests(2))):
        with pytest.raises(NotFittedError):
            unfitted()
    with pytest.raises(ConfigError, match=r"freeze=\[''\]: leaves no weight to train"):
        quick().fit(rests(2), freeze="")


@pytest.mark.parametrize("key", ["scale", "rate", "montage"])
def test_a_schema_cut_short_is_refused_when_it_is_loaded(
    key: str, fitted: EEGClassifier, tmp_path: Path
) -> None:
    folder = fitted.save(tmp_path / "run")
    schema = yaml.safe_load((folder / "schema.yaml").read_text())
    for broken in ({k: v for k, v in schema.items() if k != key}, {**schema, key: "zz"}):
        (folder / "schema.yaml").write_text(yaml.safe_dump(broken))
        with pytest.raises(RunError, match="is not complete"):
            EEGClassifier.load(folder)


def test_windows_of_another_length_are_refused(fitted: EEGClassifier) -> None:
    x = np.random.default_rng(0).normal(size=(3, 14, 40))
    with pytest.raises(DataError, match="X: its windows are of 40 samples, fitted were 64; cut them so"):
        fitted.predict(x)
    with pytest.raises(DataError, match="rest of a: its windows are of 32 samples, fitted were 64"):
        fitted.score(make_windows(EEGSet((rests(2),), ("0", "1"), "rest of a"), 32))
    with pytest.raises(DataError, match="X: has 13 channels, 14 are expected"):
        fitted.predict(x[:, :13])
