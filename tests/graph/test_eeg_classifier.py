"""`EEGClassifier`: every way to give it data, saving, seeds, splits, pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eeg_files import edf
from eeg_signals import RATE, frame, quick, rests, trials
from scipy.io import savemat
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict, cross_val_score

from graphrec.errors import ConfigError, DataError, RunError
from graphrec.graph.eeg import EEGClassifier
from graphrec.pipelines.eeg import EPOC, EEGSet, Montage, make_windows


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


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(epochs=1, centre=True).fit(trials(2, 3, classes=3), split=None)
        model.evaluate(trials(1, 2, classes=3))


def test_arrays_of_any_layout_and_sizes_of_numpy() -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 14, 64)).astype(np.float32), np.arange(12) % 2
    model = quick(epochs=1, batch_size=np.int64(4)).fit(x[::-1], y[::-1])
    found = model.predict_proba(x)
    assert np.array_equal(model.predict_proba(x[::-1]), found[::-1])
    again = quick(epochs=1, batch_size=4).fit(torch.from_numpy(x[::-1].copy()).requires_grad_(), y[::-1])
    assert np.array_equal(again.predict_proba(x), found)


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


def test_predictions_need_no_labels_that_were_fitted(fitted: EEGClassifier) -> None:
    other = EEGSet((rests(2),), ("open", "closed"))
    assert np.array_equal(fitted.predict(other), fitted.predict(rests(2)))
    with pytest.raises(DataError, match="class open was not fitted"):
        fitted.score(other)
