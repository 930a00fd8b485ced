"""Exported models: any model, both formats, and from raw rows to scores without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click_log import click_log

from graphrec import CTRClassifier, export_run, tracing
from graphrec.errors import ConfigError, DataError, RunError
from graphrec.estimators.fitting import build
from graphrec.examples.score import Server, main
from graphrec.export import Scorer, input_names, input_tensors
from graphrec.export.exporting import random_features
from graphrec.pipelines.tables import Features, FeatureSpec, Field

pytest.importorskip("onnxruntime")
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 128, "accelerator": "cpu", "random_state": 0}
SPEC = FeatureSpec(
    (
        Field("user", "categorical", size=40),
        Field("price", "numeric"),
        Field("tags", "multi", size=12, length=4, pooling="max"),
        Field("item", "categorical", size=30),
        Field("hash", "categorical", size=50, quotient=8),
        Field("history", "sequence", size=30, length=5, vocabulary="item"),
    ),
    ("click", "like"),
)


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return click_log(400)


@pytest.fixture(scope="module")
def model(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> CTRClassifier:
    path = tmp_path_factory.mktemp("export") / "log.parquet"
    log.write_parquet(path)
    return CTRClassifier("fcn", **QUICK).fit(path, label="click", ignore=["like"])


@pytest.fixture(scope="module")
def served(model: CTRClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "onnx"
    model.export(folder)
    return folder


@pytest.mark.parametrize("name", ["fwfm", "mmoe"])
def test_scorer_traces_with_every_kind_of_field_and_any_number_of_rows(name: str) -> None:
    spec = SPEC
    scorer = Scorer(build(name, spec, {}, 0))
    inputs = input_tensors(spec, random_features(spec, 16))
    free = (tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),)
    with torch.no_grad():
        program = torch.export.export(scorer, inputs, dynamic_shapes=free, strict=False).module()
        for rows in (1, 2, 33):
            fresh = input_tensors(spec, random_features(spec, rows))
            torch.testing.assert_close(program(*fresh), scorer(*fresh), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kinds", [("numeric",), ("categorical",), ("sequence",)])
def test_tables_of_one_kind_of_field(kinds: tuple[str, ...]) -> None:
    fields = tuple(f for f in SPEC.fields if f.kind.value in kinds)
    spec = FeatureSpec(fields, ("click",))
    scorer = Scorer(build("fm", spec, {}, 0))
    inputs = input_tensors(spec, random_features(spec, 8))
    assert len(inputs) == len(input_names(spec)) == 1
    assert scorer(*inputs).shape == (8, 1)


def test_random_features_are_valid_and_hold_the_odd_cases() -> None:
    features: Features = random_features(SPEC, 400)
    assert (features.categorical >= 0).all()
    assert (features.categorical < torch.tensor([40, 30, 50])).all()
    assert (features.categorical[:, 0] < 2).any()
    assert features.numeric.isnan().any()
    for ids, size in zip(features.lists, (12, 30), strict=True):
        assert ids.max() < size
        assert (ids == 0).all(1).any()
        assert not ((ids[:, :-1] == 0) & (ids[:, 1:] != 0)).any()


def test_an_export_folder_explains_itself(served: Path, model: CTRClassifier) -> None:
    assert {p.name for p in served.iterdir()} == {"model.onnx", "encoder", "export.json", "README.md"}
    facts = json.loads((served / "export.json").read_text())
    assert facts["check"]["origin"] == "the rows it was fitted on"
    assert facts["check"]["rows"] == 400
    assert facts["check"]["max_abs_difference"] < 1e-5
    assert [entry["name"] for entry in facts["inputs"]] == ["categorical", "numeric", "list_item_history"]
    text = (served / "README.md").read_text()
    assert all(name in text for name in model.feature_names_in_)


def test_raw_rows_to_scores_equal_predict_proba(
    served: Path, model: CTRClassifier, log: pl.DataFrame
) -> None:
    rows = log.drop("click", "like").to_dicts()
    expected = model.predict_proba(log)[:, 1]
    server = Server(served)
    assert server.score([]).shape == (0, 1)
    np.testing.assert_allclose(server.score(rows)[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(server.score(rows[:1])[0, 0], expected[0], atol=1e-5)
    odd = [
        {},
        {"user_id": 10**9, "item": "never seen", "price": None, "item_history": None},
        {"price": "1.5", "item_history": []},
    ]
    frame = pl.DataFrame(
        {
            "user_id": [None, 10**9, None],
            "item": [None, "never seen", None],
            "hour": pl.Series([None, None, None], dtype=pl.Int64),
            "price": [None, None, 1.5],
            "item_history": pl.Series([None, None, []], dtype=pl.List(pl.String)),
        }
    )
    np.testing.assert_allclose(server.score(odd)[:, 0], model.predict_proba(frame)[:, 1], atol=1e-5)


def test_a_row_that_is_not_what_its_column_should_be_is_refused(served: Path) -> None:
    with pytest.raises(DataError, match="price"):
        Server(served).score([{"price": "cheap"}])


def test_the_example_needs_no_torch(
    served: Path, model: CTRClassifier, log: pl.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('a server has no torch')")
    log.drop("click", "like").write_ndjson(tmp_path / "rows.jsonl")
    done = subprocess.run(
        [sys.executable, "-m", "graphrec.examples.score", str(served), str(tmp_path / "rows.jsonl")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = [json.loads(line)["click"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(scores, model.predict_proba(log)[:, 1], atol=1e-5)


def test_the_example_says_what_is_wrong_in_one_line(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "rows.jsonl"]) == 2
    assert main([str(served), str(tmp_path / "none.jsonl")]) == 2
    assert main([]) == 2
    for second in ("not json", "[1, 2]"):
        (tmp_path / "rows.jsonl").write_text(f"{{}}\n{second}\n")
        assert main([str(served), str(tmp_path / "rows.jsonl")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert "is no export folder" in lines[0]
    assert "line 2: is no JSON" in lines[3]
    assert "line 2: holds a list, not an object" in lines[4]


def test_torch_export_of_a_run_with_several_labels(tmp_path: Path, log: pl.DataFrame) -> None:
    model = CTRClassifier("mmoe", **QUICK).fit(log, label=["click", "like"])
    model.save(tmp_path / "run")
    facts = export_run(tmp_path / "run", tmp_path / "out", format="torch", data=log)
    assert facts["check"]["origin"] == "given rows"
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    batch = next(model.encoder_.batches(log.head(3)))
    scores = program(*input_tensors(model.encoder_.spec, batch.features)).detach().numpy()
    np.testing.assert_allclose(scores, model.predict_proba(log.head(3)), atol=1e-5)


def test_without_any_rows_random_inputs_are_compared(tmp_path: Path, log: pl.DataFrame) -> None:
    model = CTRClassifier("lr", **QUICK).fit(log, label="click", ignore=["like"])
    assert model.export(tmp_path / "out", format="torch")["check"]["origin"] == "random valid inputs"


def test_mistakes_leave_nothing_behind(
    tmp_path: Path, model: CTRClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="format: 'tflite' is not one of onnx, torch"):
        model.export(tmp_path / "out", format="tflite")
    with pytest.raises(DataError, match=r"none\.parquet"):
        model.export(tmp_path / "out", format="torch", data=str(tmp_path / "none.parquet"))

    def wrong(file: Path, names: list[str], inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
        return np.zeros((len(inputs[0]), 1))

    monkeypatch.setattr("graphrec.export.exporting._run_torch", wrong)
    with pytest.raises(RunError, match="scores differ by"):
        model.export(tmp_path / "out", format="torch")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="exists already"):
        model.export(tmp_path / "out", format="torch")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="is of Linux")
def test_a_graph_that_cannot_be_written_ends_in_an_error() -> None:
    """In torch's own writer it ended the process."""
    program = tracing.traced(torch.nn.Linear(3, 2).eval(), (torch.ones(4, 3),))
    with pytest.raises(OSError, match="No space left on device"):
        tracing.write_torch(program, Path("/dev/full"))
