"""EEG by recipes: windows from files, splits that keep recordings whole, tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from eeg_files import dreamer, eye_state

from graphrec.errors import ConfigError, DataError
from graphrec.graph.eeg import EEGClassifier, candidate_bands
from graphrec.pipelines.recipes import SOURCES, SPLITS, DataFolder, read_recipe
from graphrec.running import run_recipe

QUICK: dict[str, Any] = {"training.epochs": 2, "training.batch_size": 64, "repeat.splits": [1]}


def test_the_recipe_of_eye_state_runs(tmp_path: Path) -> None:
    (tmp_path / "eeg_eye_state").mkdir()
    eye_state(tmp_path / "eeg_eye_state" / "EEG_Eye_State.arff", seconds=40)
    run = run_recipe("histn-eye-state", tmp_path / "run", data=tmp_path, changes={**QUICK, "split.folds": 4})
    found = run.summary["histn"]
    assert run.metric == "test/balanced_accuracy"
    assert 0 <= found["test/balanced_accuracy"]["mean"] <= 1
    assert found["test/majority"]["n"] == 1
    assert run.repetitions[0].facts["parameters"] == 1181 - 19 * 3 - 3
    assert (run.folder / "figures" / "histn-gates.png").exists()
    assert (run.folder / "figures" / "histn-confusion.svg").exists()
    model = EEGClassifier.load(run.folder / "repetitions" / "histn" / "seed-0-split-1" / "model")
    assert model.classes_.tolist() == [0, 1]
    assert model.schema_["band"] in [list(band) for band in candidate_bands(128).values()]
    with pytest.raises(ConfigError, match=r"training\.gap: is for band: auto"):
        run_recipe("histn-eye-state", tmp_path / "again", data=tmp_path, changes={"training.band": None})


def test_dreamers_recipes_run(tmp_path: Path) -> None:
    dreamer(tmp_path / "DREAMER.mat", people=3, clips=5, samples=768)
    short = {**QUICK, "data.seconds": 6, "training.step_epochs": [1]}
    for name, changes in (
        ("histn-dreamer-within-trials", {"data.stride": 0.5, "split.folds": 3}),
        ("histn-dreamer-new-subjects", {"split.valid": 1}),
    ):
        run = run_recipe(name, tmp_path / name, data=tmp_path, changes={**short, **changes})
        assert run.metric == "test/f1_weighted"
        assert run.summary["histn"]["test/tri_p"]["n"] == 1


def test_splits_of_windows(tmp_path: Path) -> None:
    dreamer(tmp_path / "DREAMER.mat", people=3, clips=4, samples=768)
    folder = DataFolder.find(tmp_path, "")
    windows = SOURCES.call({"source": "dreamer", "seconds": 6, "stride": 0.5}, folder)
    for section, count in (
        ({"kind": "along_time", "valid": 0.3, "test": 0.3}, 1),
        ({"kind": "within_recordings", "folds": 3}, 3),
        ({"kind": "within_recordings", "folds": 3, "by_subject": True}, 9),
        ({"kind": "whole_recordings", "valid": 0.2}, 1),
        ({"kind": "left_out_subjects"}, 3),
    ):
        splits = SPLITS.call(section, windows, 0, folder)
        assert len(splits) == count
        for split in splits:
            owner = windows.subject if section["kind"] == "left_out_subjects" else windows.recording
            shared = set(owner[split.train].tolist()) & set(owner[split.test].tolist())
            whole = section["kind"] in ("whole_recordings", "left_out_subjects")
            assert (not shared) == whole
            if section.get("by_subject"):
                assert len(windows.subject[split.train].unique()) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"training.stride": 0.5}, ConfigError, "training.stride: there is no such setting"),
        ({"model.name": "gin"}, ConfigError, "model: model='gin': is for graph"),
        ({"model.options.hop": 2}, ConfigError, "model: hop: histn has no such option"),
        ({"data.outliers": "drop"}, ConfigError, "data.outliers"),
        ({"split.kind": "random"}, ConfigError, "split.kind: 'random' does not divide what 'eeg_file' gives"),
        ({}, DataError, "EEG_Eye_State.arff"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    if changes == {"split.kind": "random"}:
        changes = {"split": {"kind": "random"}}
    with pytest.raises(error, match=message):
        run_recipe("histn-eye-state", tmp_path / "run", data=tmp_path, changes=changes)


def test_published_figures_are_those_of_the_card() -> None:
    from graphrec.registry import card

    recipe = read_recipe("histn-dreamer-within-trials")
    published = card("histn").published["DREAMER valence F1, subject-dependent"]
    assert recipe.published["histn"] == published
