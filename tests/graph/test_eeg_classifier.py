"""`EEGClassifier`: every way to give it data, what it refuses, saving, seeds, splits, pictures."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from eeg_files import edf
from eeg_signals import RATE, rests, trials
from scipy.io import savemat
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict, cross_val_score

from graphrec.errors import ConfigError, DataError, GraphrecError, RunError, SchemaError
from graphrec.graph.eeg import EEGClassifier
from graphrec.pipelines.eeg import EPOC, EEGSet, Montage, make_windows, split_by_time
from graphrec.pipelines.index_splits import IndexSplit, random_parts

QUICK: dict[str, Any] = {
    "epochs": 6,
    "batch_size": 16,
    "learning_rate": 1e-2,
    "validation": 0.25,
    "stride": 0.5,
    "model_options": {"kernel_length": 16, "momentum": 0.1, "label_smoothing": 0.0},
    "random_state": 0,
}


def quick(**change: Any) -> EEGClassifier:
    return EEGClassifier(**{**QUICK, **change})


@pytest.fixture(scope="module")
def fitted() -> EEGClassifier:
    return quick(epochs=8).fit(rests())


def test_it_learns_and_tells(fitted: EEGClassifier) -> None:
    other = rests(seed=7)
    found = fitted.evaluate(other)
    assert found["majority"] < 0.6
    assert found["accuracy"] > 0.9
    assert fitted.score(other) == found["accuracy"]
    assert fitted.metrics_["valid"]["accuracy"] > 0.9
    assert [row["epoch"] for row in fitted.history_] == list(range(1, 9))
    windows = fitted.windows(other)
    scores = fitted.predict_proba(other)
    assert scores.shape == (len(windows), 2)
    assert np.allclose(scores.sum(1), 1, atol=1e-5)
    assert set(fitted.predict(other)) == {"0", "1"}


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_says_that_it_was_not_fitted(method: str) -> None:
    with pytest.raises(NotFittedError, match="EEGClassifier"):
        getattr(EEGClassifier(), method)(rests())


def test_labels_that_say_nothing_are_not_learned() -> None:
    one = rests()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = replace(one, label=one.label.view(12, -1)[order].reshape(-1))
    found = quick(epochs=8).fit(shuffled).evaluate(rests(seed=7))
    assert found["balanced_accuracy"] < 0.9


def frame(signal: torch.Tensor, label: torch.Tensor | None = None) -> pl.DataFrame:
    columns = dict(zip(EPOC.channels, signal.T.double().numpy(), strict=True))
    return pl.DataFrame(columns if label is None else {**columns, "eye": label.numpy()})


def as_arff(path: Path, signal: torch.Tensor, label: torch.Tensor) -> Path:
    head = [
        "@RELATION r",
        *(f"@ATTRIBUTE {c} NUMERIC" for c in EPOC.channels),
        "@ATTRIBUTE eye {0,1}",
        "@DATA",
    ]
    rows = [
        ",".join(f"{v:.6f}" for v in row) + f",{y}"
        for row, y in zip(signal.tolist(), label.tolist(), strict=True)
    ]
    path.write_text("\n".join([*head, *rows]) + "\n")
    return path


def test_every_container_gives_the_same(tmp_path: Path) -> None:
    """A recording, ARFF, parquet, a data frame, MATLAB's format: the same windows, so the same network."""
    one = rests(4, seconds=4)
    assert one.label is not None
    frame(one.signal, one.label).write_parquet(tmp_path / "a.parquet")
    savemat(tmp_path / "a.mat", {"eeg": one.signal.numpy(), "eye": one.label.numpy()})
    sources: dict[str, tuple[Any, dict[str, Any]]] = {
        "recording": (one, {}),
        "set": (EEGSet((one,), ("0", "1")), {}),
        "arff": (as_arff(tmp_path / "a.arff", one.signal, one.label), {"rate": RATE, "label": "eye"}),
        "parquet": (tmp_path / "a.parquet", {"rate": RATE, "label": "eye"}),
        "frame": (frame(one.signal, one.label), {"rate": RATE, "label": "eye"}),
        "mat": (
            str(tmp_path / "a.mat"),
            {"rate": RATE, "label": "eye", "signal": "eeg", "channels": EPOC.channels},
        ),
    }
    found = {}
    for name, (source, how) in sources.items():
        model = quick(epochs=1).fit(source, **how)
        found[name] = model.predict_proba(source, **how)
        assert model.evaluate(source, **how)["logloss"] > 0
        assert [str(one) for one in model.classes_.tolist()] == ["0", "1"]
    for name, scores in found.items():
        assert np.allclose(scores, found["recording"], atol=1e-4), name


def test_edf_with_a_class_per_file(tmp_path: Path) -> None:
    pytest.importorskip("mne")
    paths = []
    for i, part in enumerate(rests(6, seconds=4).signal.split(256)):
        paths.append(edf(tmp_path / f"{i}.edf", part.numpy() * 50, list(EPOC.channels), int(RATE)))
    model = quick(split_by="recording", validation=0.2, epochs=2)
    model.fit(paths, labels=[0, 1] * 3, subjects=list("abcdef"))
    assert model.predict(paths, by="recording").shape == (6,)
    assert model.fit(paths, ["open", "shut"] * 3).classes_.tolist() == ["open", "shut"]


def test_arrays(fitted: EEGClassifier) -> None:
    windows = make_windows(EEGSet((rests(),), ("0", "1")), int(RATE))
    x, y = windows.batch()
    cut = x.transpose(1, 2).numpy()  # (windows, channels, samples)
    names = np.array(["open", "shut"])[y.numpy()]
    model = quick(epochs=8).fit(cut, names)
    assert model.classes_.tolist() == ["open", "shut"]
    assert int(model.split_.train.max()) < int(model.split_.valid.min()), (
        "the beginning trains, the end validates"
    )
    assert model.score(cut, names) > 0.9
    assert set(model.predict(cut[:5])) <= {"open", "shut"}
    assert model.predict_proba(cut[:1]).shape == (1, 2)
    swapped = model.predict_proba(cut[:, ::-1].copy(), channels=EPOC.channels[::-1])
    assert np.allclose(swapped, model.predict_proba(cut), atol=1e-5)
    groups = np.repeat(np.arange(12), len(cut) // 12)
    by_group = quick(epochs=1, split_by="recording").fit(cut, names, groups=groups).split_
    owners = [set(groups[getattr(by_group, part).numpy()]) for part in ("train", "valid")]
    assert not owners[0] & owners[1]
    assert fitted.predict_proba(cut).shape == (len(cut), 2)


def test_windows_of_one_recording_never_straddle_a_split() -> None:
    data = trials(people=4, clips=3, classes=3)
    for by in ("recording", "subject"):
        model = quick(epochs=1, split_by=by).fit(data)
        windows = model.windows(data)
        owner = windows.recording if by == "recording" else windows.subject
        split = model.split_
        assert not set(owner[split.train].tolist()) & set(owner[split.valid].tolist())
    model = quick(epochs=1, gap=1.0).fit(data)
    windows = model.windows(data)
    for r in range(12):
        first, second = (
            windows.offset[i[windows.recording[i] == r]] for i in (model.split_.train, model.split_.valid)
        )
        assert int(second.min()) - int(first.max()) - windows.length >= RATE


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


def test_save_and_load(tmp_path: Path) -> None:
    montage = Montage.from_regions({"left": ["F3", "O1"], "right": ["F4", "O2"]}, name="mine")
    one = rests(6)
    model = quick(montage=montage, epochs=2, band=(1, 30), reference="average", outliers="clip").fit(one)
    folder = model.save(tmp_path / "run")
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "model.safetensors",
        "config.yaml",
        "schema.yaml",
        "metrics.json",
        "history.csv",
        "run.json",
    }
    again = EEGClassifier.load(folder)
    assert np.array_equal(again.predict_proba(one), model.predict_proba(one))
    assert again.schema_ == model.schema_
    assert again.schema_["channels"] == ["F3", "O1", "F4", "O2"]
    assert again.classes_.tolist() == model.classes_.tolist()
    again.fit(one)
    (folder / "schema.yaml").unlink()
    with pytest.raises(RunError, match=r"schema.yaml: cannot be opened"):
        EEGClassifier.load(folder)
    with pytest.raises(RunError, match="exists already"):
        model.save(folder)


def test_seeds_and_scikit_learn() -> None:
    one = rests(6)
    first, second, third = (quick(epochs=2, random_state=s).fit(one).predict_proba(one) for s in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    model = quick(montage=EPOC)
    assert clone(model).get_params() == model.get_params()


def test_early_stopping_restores_the_best() -> None:
    model = quick(epochs=40, patience=3, learning_rate=0.03).fit(rests(6))
    losses = [row["valid_logloss"] for row in model.history_]
    assert len(losses) < 40
    assert model.metrics_["valid"]["logloss"] == pytest.approx(min(losses), rel=1e-4)
    assert losses.index(min(losses)) == len(losses) - 4


@pytest.mark.filterwarnings("ignore:precision. this CPU has no bfloat16")
def test_bf16_training_and_constraints() -> None:
    model = quick(epochs=3, learning_rate=0.5, train_options={"precision": "bf16-mixed"}).fit(rests(6))
    module = model.module_
    assert float(module.temporal.depthwise.detach().norm(dim=1).max()) <= 1 + 1e-6
    assert float(module.temporal.mix.detach().abs().max()) <= 1
    assert np.isfinite(model.predict_proba(rests(6))).all()


def test_class_weights_and_frozen_weights(fitted: EEGClassifier) -> None:
    model = quick(class_weight="balanced", balanced=False, epochs=1)
    before = {k: v.clone() for k, v in fitted.module_.state_dict().items()}
    model.fit(rests(seed=2), source=fitted, freeze=("temporal.kernel",))
    assert torch.equal(model.module_.temporal.kernel, before["temporal.kernel"])
    assert not torch.equal(model.module_.temporal.mix, before["temporal.mix"])
    assert all(torch.equal(v, before[k]) for k, v in fitted.module_.state_dict().items()), (
        "source is as it was"
    )
    assert model.schema_["scale"] == fitted.schema_["scale"]
    with pytest.raises(ConfigError, match="freeze='kernel': no weight is called so"):
        quick().fit(rests(), source=fitted, freeze=("kernel",))
    with pytest.raises(ConfigError, match="source: is of another kind or size"):
        quick(montage="epoc3").fit(rests(), source=fitted)


def test_gates_and_their_picture(fitted: EEGClassifier, tmp_path: Path) -> None:
    gates = fitted.gates(rests(4, seed=5))
    assert list(gates["electrodes_after"]) == list(EPOC.channels)
    for region in EPOC.regions:
        assert sum(gates["electrodes"][c] for c in region.channels) == pytest.approx(1, abs=1e-5)
    assert sum(gates["regions_after"].values()) == pytest.approx(1, abs=1e-5)
    figure = fitted.plot_gates(rests(4, seed=5), tmp_path / "gates.png")
    heads = figure.axes[:2]
    texts = [{text.get_text() for text in axes.texts} for axes in heads]
    assert all(set(EPOC.channels) <= found for found in texts)
    assert f"{gates['regions']['left back']:.0%}" in texts[0]
    assert (tmp_path / "gates.png").stat().st_size > 10_000


def test_names_of_electrodes_that_their_dots_have_no_room_for_stand_below() -> None:
    from graphrec.graph.eeg.pictures import gates_figure

    places = {"Fp1": (0.0, 0.5), "EEG $O1$-Ref": (0.0, -0.5)}
    montage = Montage.from_regions({"all": list(places)}, positions=places)
    share, whole = dict.fromkeys(places, 0.5), {"all": 1.0}
    fields = {"electrodes": share, "electrodes_after": share, "regions": whole, "regions_after": whole}
    texts = {one.get_text(): one.get_position() for one in gates_figure(montage, fields).axes[0].texts}
    assert texts["Fp1"] == places["Fp1"]
    assert texts[r"EEG \$O1\$-Ref"] == (0.0, pytest.approx(-0.61))


def test_positions_without_and_with_mne() -> None:
    from graphrec.graph.eeg.pictures import positions_of

    bare = Montage.from_regions({"front": ["Fz", "F3"], "back": ["oz", "Cz"]})
    pytest.importorskip("mne")
    found = positions_of(bare)
    assert found["Fz"][1] > 0.3
    assert found["oz"][1] < -0.7
    assert found["F3"][0] < -0.2
    assert np.hypot(*found["Cz"]) < 0.15
    with pytest.raises(ConfigError, match="X1 has no standard place"):
        positions_of(Montage.from_regions({"a": ["X1"], "b": ["Cz"]}))


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


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(epochs=1, centre=True).fit(trials(2, 3, classes=3), split=None)
        model.evaluate(trials(1, 2, classes=3))


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


def test_arrays_of_any_layout_and_sizes_of_numpy() -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 14, 64)).astype(np.float32), np.arange(12) % 2
    model = quick(epochs=1, batch_size=np.int64(4)).fit(x[::-1], y[::-1])
    found = model.predict_proba(x)
    assert np.array_equal(model.predict_proba(x[::-1]), found[::-1])
    again = quick(epochs=1, batch_size=4).fit(torch.from_numpy(x[::-1].copy()).requires_grad_(), y[::-1])
    assert np.array_equal(again.predict_proba(x), found)


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


def test_cross_validation_takes_windows_and_does_not_leak() -> None:
    windows = make_windows(trials(), 64, 64)
    model, labels = quick(epochs=1, validation=0.0), np.asarray(windows.classes)[windows.y]
    groups = {"groups": windows.recording, "cv": GroupKFold(3)}
    assert cross_val_score(model, windows, labels, **groups).shape == (3,)
    by_number = cross_val_score(model, windows, windows.y, scoring="balanced_accuracy", **groups)
    assert np.isfinite(by_number).all(), "the texts of the windows' own classes were looked at"
    assert set(cross_val_predict(model, windows, labels, **groups)) <= set(windows.classes)
    search = GridSearchCV(clone(model), {"learning_rate": [1e-3, 1e-2]}, cv=GroupKFold(3))
    assert search.fit(windows, labels, groups=windows.subject).best_score_ > 0

    of_recordings = cross_val_score(model, trials(), np.tile(["a", "b", "c"], 5), cv=KFold(3))
    assert np.isfinite(of_recordings).all(), "whole recordings, with a class each"

    one = make_windows(EEGSet((rests(6),), ("0", "1"), "rest"), 64, 64)
    assert cross_val_score(model, one, one.y, cv=KFold(3)).shape == (3,), "stretches along time"
    leaks = {
        "rest: recording 0 falls in .* stretches on both sides of a split.*GroupKFold": (
            one,
            KFold(3, shuffle=True),
        ),
        "rest: windows 31 and 32 share samples and fall on both sides": (
            make_windows(EEGSet((rests(6),), ("0", "1"), "rest"), 64, 32),
            KFold(3),
        ),
    }
    for message, (found, folds) in leaks.items():
        with pytest.raises(DataError, match=message):
            cross_val_score(model, found, found.y, cv=folds)


def test_windows_of_another_length_are_refused(fitted: EEGClassifier) -> None:
    x = np.random.default_rng(0).normal(size=(3, 14, 40))
    with pytest.raises(DataError, match="X: its windows are of 40 samples, fitted were 64; cut them so"):
        fitted.predict(x)
    with pytest.raises(DataError, match="rest of a: its windows are of 32 samples, fitted were 64"):
        fitted.score(make_windows(EEGSet((rests(2),), ("0", "1"), "rest of a"), 32))
    with pytest.raises(DataError, match="X: has 13 channels, 14 are expected"):
        fitted.predict(x[:, :13])


def test_predictions_need_no_labels_that_were_fitted(fitted: EEGClassifier) -> None:
    other = EEGSet((rests(2),), ("open", "closed"))
    assert np.array_equal(fitted.predict(other), fitted.predict(rests(2)))
    with pytest.raises(DataError, match="class open was not fitted"):
        fitted.score(other)
