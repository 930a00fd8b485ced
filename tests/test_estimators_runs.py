"""`CTRClassifier` on disk: saving, loading, writing scores, and run folders that are damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click_log import click_log
from quick_models import IGNORE, quick

from graphrec import CTRClassifier
from graphrec.cli.options import read_config
from graphrec.errors import ConfigError, RunError
from graphrec.estimators.fitting import pick_batch_size
from graphrec.estimators.writing import write_scores
from graphrec.pipelines.tables import Split


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return click_log(800)


@pytest.fixture(scope="module")
def fitted(log: pl.DataFrame) -> CTRClassifier:
    return quick().fit(log, label="click", ignore=IGNORE)


def test_save_and_load_give_the_same_scores(tmp_path: Path, log: pl.DataFrame, fitted: CTRClassifier) -> None:
    fitted.save(tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {
        "model.safetensors",
        "config.yaml",
        "schema.yaml",
        "encoder",
        "metrics.json",
        "history.csv",
    } <= names
    loaded = CTRClassifier.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict_proba(log), fitted.predict_proba(log))
    assert loaded.metrics_ == fitted.metrics_
    assert loaded.history_ == fitted.history_
    assert loaded.classes_.tolist() == [0, 1]
    assert loaded.get_params()["epochs"] == 4
    with pytest.raises(RunError, match="exists already"):
        fitted.save(tmp_path / "run")
    loaded.save(tmp_path / "run", overwrite=True)


def test_a_run_with_missing_or_damaged_files_is_refused(tmp_path: Path, fitted: CTRClassifier) -> None:
    folder = fitted.save(tmp_path / "run")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RunError, match=r"model\.safetensors"):
        CTRClassifier.load(folder)
    (folder / "encoder" / "encoder.json").unlink()
    with pytest.raises(RunError, match="encoder"):
        CTRClassifier.load(folder)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("run.json", {"model_options": 3}, "run: is not complete"),
        ("run.json", {"classes": 3}, "run: is not complete"),
        ("encoder/encoder.json", {"coders": 3}, "encoder: the saved encoder is damaged"),
        ("encoder/encoder.json", None, "encoder: the saved encoder is damaged"),
    ],
)
def test_a_run_whose_files_hold_something_else_is_refused(
    tmp_path: Path, fitted: CTRClassifier, file: str, change: dict[str, int] | None, said: str
) -> None:
    path = fitted.save(tmp_path / "run") / file
    path.write_text(json.dumps([] if change is None else json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=said):
        CTRClassifier.load(tmp_path / "run")


@pytest.mark.parametrize("older", [False, True])
def test_a_configuration_cut_short_at_a_line_end_is_refused(
    older: bool, tmp_path: Path, fitted: CTRClassifier
) -> None:
    folder = fitted.save(tmp_path / "run")
    config, info = folder / "config.yaml", json.loads((folder / "run.json").read_text())
    lines = config.read_text().splitlines(keepends=True)
    if older:  # which did not list its settings, nor know one of them
        (folder / "run.json").write_text(json.dumps({k: v for k, v in info.items() if k != "settings"}))
        lines = [line for line in lines if not line.startswith("patience:")]
        config.write_text("".join(lines))
        CTRClassifier.load(folder)
    for kept in (3, len(lines) - 1):
        config.write_text("".join(lines[:kept]))
        with pytest.raises(
            RunError, match=r"config\.yaml: was cut short, it lacks .*split; copy the run again"
        ):
            CTRClassifier.load(folder)
        with pytest.raises(RunError, match=r"config\.yaml: was cut short"):
            read_config(str(config))


def test_scores_that_cannot_be_written_name_the_file(
    tmp_path: Path, log: pl.DataFrame, fitted: CTRClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("graphrec.estimators.writing._Writer.write", full)
    with pytest.raises(RunError, match=r"scores\.csv: cannot be written .*No space left"):
        write_scores(fitted, log, tmp_path / "scores.csv")
    assert not list(tmp_path.iterdir())


def test_what_is_saved_is_what_was_fitted_whatever_was_set_since(tmp_path: Path, log: pl.DataFrame) -> None:
    model = quick().fit(log, label="click", ignore=["like"])
    before = model.predict_proba(log)
    model.set_params(model="lr", embedding_dim=3, epochs=9)
    model.save(tmp_path / "run")
    loaded = CTRClassifier.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict_proba(log), before)
    assert (loaded.model, loaded.epochs) == ("fm", quick().epochs)
    assert (model.model, model.epochs) == ("lr", 9)
    assert model.explain(log, rows=50, repeats=1).model == "fm"


@pytest.mark.parametrize("given", ["csv", "parquet", "frame"])
def test_columns_of_any_flat_type_are_kept_beside_scores_in_csv(
    given: str, log: pl.DataFrame, tmp_path: Path
) -> None:
    day = pl.lit("2024-05-31").str.to_date()
    rows = log.select("click", "price", "item", day=day, kind=pl.col("item").cast(pl.Categorical))
    model = quick("lr", epochs=1).fit(rows, label="click", ignore=["day", "kind"])
    if given != "frame":
        {"csv": rows.write_csv, "parquet": rows.write_parquet}[given](tmp_path / f"rows.{given}")
    source: Any = rows if given == "frame" else tmp_path / f"rows.{given}"
    keep = ["item", "day", "kind", "price"]
    assert write_scores(model, source, tmp_path / "scores.csv", keep=keep) == len(rows)
    found = pl.read_csv(tmp_path / "scores.csv", schema_overrides={"item": pl.String, "kind": pl.String})
    assert found.columns == [*keep, "probability"]
    assert found["item"].to_list() == found["kind"].to_list() == rows["item"].to_list()
    assert found["price"].to_list() == rows["price"].to_list()
    np.testing.assert_allclose(found["probability"], model.predict_proba(rows)[:, 1], rtol=1e-6)
    spans = rows.with_columns(span=pl.duration(hours=1))
    with pytest.raises(ConfigError, match=r"column 'span' is Duration.* which CSV cannot hold"):
        write_scores(model, spans, tmp_path / "other.csv", keep=["span"])


def test_a_report_gives_weighted_rates_and_the_settings_that_were_used(
    log: pl.DataFrame, tmp_path: Path
) -> None:
    """Half of the figures were weighted; settings that nobody gave were blank."""
    weighted = log.with_columns(w=pl.when(pl.col("click") == 1).then(3.0).otherwise(1.0))
    split = Split.order(valid=0.25, test=0)
    model = CTRClassifier("lr", epochs=1, accelerator="cpu", verbose=0, random_state=0)
    model.fit(weighted, label="click", ignore=IGNORE, weight="w", validation=split, run_dir=tmp_path / "run")
    text = " ".join(re.sub(r"<[^>]+>", " ", (tmp_path / "run" / "report.html").read_text()).split())
    for part, rows in (("Training", weighted.head(600)), ("Validation", weighted.tail(200))):
        rate = (rows["click"] * rows["w"]).sum() / rows["w"].sum()
        assert f"{part} {len(rows)} {100 * rate:.1f}%" in text
    assert f"batch_size {pick_batch_size(600)} " in text
    assert "among 200 validation rows" in text
    assert "label click " in text
