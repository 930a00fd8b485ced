"""The commands, end to end: from a file to a run folder, scores, explanations, exports, comparisons."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click_log import click_log
from safetensors.numpy import load_file
from typer.testing import CliRunner

from graphrec import CTRClassifier
from graphrec.cli import app
from graphrec.estimators import comparing

QUICK = ["--device", "cpu", "--quiet", "--set", "batch_size=64"]
FILES = {
    "model.safetensors", "config.yaml", "schema.yaml", "encoder", "metrics.json", "history.csv",
    "report.html", "run.json",
}  # fmt: skip


def run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a later log, and a run fitted by the command line."""
    folder = tmp_path_factory.mktemp("work")
    click_log(600).write_parquet(folder / "log.parquet")
    click_log(200, seed=1).write_parquet(folder / "later.parquet")
    options = ["-l", "click", "--ignore", "like", "--test", "0.2", "--group", "user_id", "--epochs", "2"]
    result = run("fit", folder / "log.parquet", *options, "--out", folder / "run", *QUICK)
    assert "auc" in result.stdout
    assert str(folder / "run" / "report.html") in result.stdout.replace("\n", "")
    return folder


def test_the_run_folder_explains_itself(folder: Path) -> None:
    assert {p.name for p in (folder / "run").iterdir()} == FILES
    assert not (folder / "run.partial").exists()
    info = json.loads((folder / "run" / "run.json").read_text())
    assert info["format_version"] == 1
    assert info["model"] == "fcn"
    assert len(info["data"]) > 10
    assert info["seed"] == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test"]["rows"] in range(115, 126)
    assert metrics["test"]["gauc"] is not None
    assert len((folder / "run" / "history.csv").read_text().splitlines()) == 3
    html = (folder / "run" / "report.html").read_text()
    assert all(word in html for word in ("fcn", "user_id", "item_history", "click"))


def test_the_configuration_of_a_run_makes_the_same_run(folder: Path) -> None:
    run(
        "fit",
        folder / "log.parquet",
        "--config",
        folder / "run" / "config.yaml",
        "--out",
        folder / "again",
        "--quiet",
    )
    one, two = (load_file(folder / name / "model.safetensors") for name in ("run", "again"))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    configs = [
        (folder / name / "config.yaml").read_text().replace("verbose: 1", "verbose: 0")
        for name in ("run", "again")
    ]
    assert configs[0] == configs[1]


def test_options_win_over_the_configuration(folder: Path) -> None:
    options = ["--model", "lr", "--epochs", "1", "--seed", "3", "--set", "embedding_l2=0.1", "--quiet"]
    config = folder / "run" / "config.yaml"
    run("fit", folder / "log.parquet", "--config", config, *options, "--out", folder / "other")
    model = CTRClassifier.load(folder / "other")
    assert (model.model, model.epochs, model.random_state, model.embedding_l2) == ("lr", 1, 3, 0.1)
    assert len(model.history_) == 1


def test_predict_keeps_order_and_columns(folder: Path) -> None:
    run(
        "predict",
        folder / "run",
        folder / "later.parquet",
        "--out",
        folder / "s.parquet",
        "--keep",
        "user_id,item",
    )
    scores = pl.read_parquet(folder / "s.parquet")
    later = pl.read_parquet(folder / "later.parquet")
    assert scores.columns == ["user_id", "item", "probability"]
    assert scores.select("user_id", "item").equals(later.select("user_id", "item"))
    expected = CTRClassifier.load(folder / "run").predict_proba(later)[:, 1]
    np.testing.assert_allclose(scores["probability"], expected, atol=1e-6)
    run(
        "predict",
        folder / "run",
        folder / "later.parquet",
        "--out",
        folder / "s.parquet",
        "--keep",
        "all",
        "--overwrite",
    )
    assert pl.read_parquet(folder / "s.parquet").columns == [*later.columns, "probability"]


def test_predict_on_more_rows_than_a_batch(folder: Path, tmp_path: Path) -> None:
    many = click_log(20_000, seed=4).with_row_index("row")
    many.write_parquet(tmp_path / "many.parquet", row_group_size=3000)
    run("predict", folder / "run", tmp_path / "many.parquet", "--out", tmp_path / "s.csv", "--keep", "row")
    scores = pl.read_csv(tmp_path / "s.csv")
    assert scores["row"].to_list() == list(range(20_000))
    expected = CTRClassifier.load(folder / "run").predict_proba(many.slice(15_000, 100))[:, 1]
    np.testing.assert_allclose(scores["probability"].slice(15_000, 100), expected, atol=1e-5)


def test_evaluate_as_table_and_as_json(folder: Path) -> None:
    found = json.loads(run("evaluate", folder / "run", folder / "later.parquet", "--json").stdout)
    assert found == CTRClassifier.load(folder / "run").evaluate(folder / "later.parquet")
    assert "0." in run("evaluate", folder / "run", folder / "later.parquet").stdout


def test_explain_writes_tables_and_pictures(folder: Path) -> None:
    result = run(
        "explain", folder / "run", folder / "later.parquet", "--out", folder / "explained", "--repeats", "1"
    )
    assert {p.name for p in (folder / "explained").iterdir()} == {
        f"{name}.{suffix}" for name in ("importance", "interactions") for suffix in ("csv", "png", "svg")
    }
    assert "user_id" in result.stdout


def test_export_names_the_next_command(folder: Path) -> None:
    result = run("export", folder / "run", "--format", "torch", "--out", folder / "pt2")
    assert "largest difference" in result.stdout
    assert (folder / "pt2" / "model.pt2").exists()


def test_compare_prints_one_table_and_leaves_runs(folder: Path) -> None:
    options = [
        "-l",
        "click",
        "--ignore",
        "like",
        "--models",
        "lr,fm,mmoe",
        "--epochs",
        "1",
        "--set",
        "embedding_dim=4",
    ]
    result = run("compare", folder / "log.parquet", *options, "--out", folder / "compared", *QUICK)
    table = pl.read_csv(folder / "compared" / "comparison.csv")
    assert sorted(table["model"]) == ["fm", "lr", "mmoe"]
    assert table["auc"].is_sorted(descending=True)
    assert all(name in result.stdout for name in ("lr", "fm", "mmoe"))
    assert {p.name for p in (folder / "compared").iterdir()} == {
        *("config.yaml", "comparison.csv", "comparison.json", "comparison.html", "lr", "fm", "mmoe")
    }
    page = (folder / "compared" / "comparison.html").read_text()
    links = re.findall(r'href="([^"]+report[^"]*)"', page)
    assert sorted(links) == ["fm/report.html", "lr/report.html", "mmoe/report.html"]
    assert all((folder / "compared" / link).is_file() for link in links)
    auc = CTRClassifier.load(folder / "compared" / "fm").metrics_["valid"]["auc"]
    assert table.filter(pl.col("model") == "fm")["auc"].item() == pytest.approx(auc)


def test_an_interrupted_comparison_fits_only_what_it_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = [
        "compare",
        str(folder / "log.parquet"),
        "-l",
        "click",
        "--ignore",
        "like",
        "--models",
        "lr,fm,dnn",
    ]
    options = [*what, "--epochs", "1", "--out", str(folder / "stopped"), *QUICK]
    fit, fitted = CTRClassifier.fit_prepared, []

    def stop_at_fm(self: CTRClassifier, *args: Any, **kwargs: Any) -> CTRClassifier:
        fitted.append(self.model)
        if fitted == ["lr", "fm"]:
            raise KeyboardInterrupt
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(CTRClassifier, "fit_prepared", stop_at_fm)
    stopped = CliRunner().invoke(app, options)
    assert stopped.exit_code == 130
    assert "--resume continues" in stopped.stderr
    assert not (folder / "stopped").exists()
    assert CliRunner().invoke(app, options).exit_code == 2, "an unfinished comparison is not thrown away"
    other = CliRunner().invoke(app, [*options, "--resume", "--seed", "7"])
    assert other.exit_code == 2
    assert "random_state" in other.stderr
    run(*options, "--resume")
    assert fitted == ["lr", "fm", "fm", "dnn"]
    assert sorted(pl.read_csv(folder / "stopped" / "comparison.csv")["model"]) == ["dnn", "fm", "lr"]
    assert not (folder / "stopped.partial").exists()


def test_a_comparison_killed_between_a_run_and_its_row_is_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    log, options = str(folder / "log.parquet"), ["-l", "click", "--ignore", "like", "--models", "lr,fm"]
    command = ["compare", log, *options, "--epochs", "1", "--out", str(folder / "between"), *QUICK]
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "_keep_rows", killed)
        assert CliRunner().invoke(app, command).exit_code == 130
    assert (folder / "between.partial" / "lr" / "run.json").exists()
    run(*command, "--resume")
    assert sorted(pl.read_csv(folder / "between" / "comparison.csv")["model"]) == ["fm", "lr"]


def test_compare_with_settings_of_single_models(folder: Path) -> None:
    out = folder / "single"
    options = ["--label", "click", "--models", "dnn,fm", "--epochs", "1", "--out", out, *QUICK]
    command = ["compare", folder / "log.parquet", *options, "--set", "embedding_dim=4"]
    run(
        *command,
        "--set",
        "dnn.hidden_units=[8]",
        "--set",
        "dnn.learning_rate=0.01",
        "--set",
        "fm.embedding_dim=2",
    )
    dnn, fm = (CTRClassifier.load(out / name) for name in ("dnn", "fm"))
    assert (dnn.embedding_dim, dnn.model_options, dnn.learning_rate) == (4, {"hidden_units": [8]}, 0.01)
    assert (fm.embedding_dim, fm.model_options, fm.learning_rate) == (2, None, None)
    for wrong, message in (
        ("dnn.hiden_units=[8]", "dnn.hiden_units: .*hidden_units"),
        ("fcn.seed=1", "fcn: has settings but is not compared; compared are dnn, fm"),
    ):
        result = CliRunner().invoke(app, [str(one) for one in [*command, "--overwrite", "--set", wrong]])
        assert result.exit_code == 2
        assert re.search(message, result.stderr)


def test_compare_goes_on_when_one_model_cannot_be_fitted(folder: Path) -> None:
    data = pl.read_parquet(folder / "log.parquet").drop("item_history")
    data.write_parquet(folder / "flat.parquet")
    result = run(
        "compare", folder / "flat.parquet", "-l", "click", "--ignore", "like", "--models", "din,lr",
        "--out", folder / "partly", "--epochs", "1", *QUICK,
    )  # fmt: skip
    rows = {row["model"]: row for row in pl.read_csv(folder / "partly" / "comparison.csv").to_dicts()}
    assert rows["lr"]["auc"] > 0.5
    assert rows["din"]["error"].startswith("the table has no sequence field")
    assert "din could not be fitted: the table has no sequence field" in result.stdout
    page = (folder / "partly" / "comparison.html").read_text()
    assert "<h1>din, lr for click</h1>" in page
    assert f"Data: {folder / 'flat.parquet'}. Measured on the validation rows." in page


def test_a_comparison_in_which_every_model_fails_says_so_of_each(folder: Path) -> None:
    options = ["-l", "click", "--ignore", "like", "--models", "lr,dnn", "--epochs", "1", *QUICK]
    wild = ["--set", "learning_rate=1.0e+30", "--set", "optimizer=sgd", "--set", "clip_norm=null"]
    failed = CliRunner().invoke(
        app, ["compare", str(folder / "log.parquet"), *options, *wild, "--out", str(folder / "wild")]
    )
    assert failed.exit_code == 2
    assert re.search(r"graphrec: lr: the loss is .*; dnn: the loss is ", failed.stderr)
    assert not list(folder.glob("wild*"))


def test_schema_is_shown_written_and_used(folder: Path) -> None:
    shown = run(
        "schema", folder / "log.parquet", "-l", "click", "--ignore", "like", "--out", folder / "schema.yaml"
    )
    assert all(name in shown.stdout for name in ("user_id", "categorical", "item_history", "sequence"))
    options = ["--schema", folder / "schema.yaml", "-m", "lr", "--epochs", "1"]
    run("fit", folder / "log.parquet", *options, "--out", folder / "by-schema", *QUICK)
    assert CTRClassifier.load(folder / "by-schema").schema_.labels == ("click",)


def test_leaks_are_named_in_a_warning_and_in_the_report(folder: Path, tmp_path: Path) -> None:
    log = pl.read_parquet(folder / "log.parquet").with_columns(paid=pl.col("click") * 7)
    log.write_parquet(tmp_path / "log.parquet")
    options = ["-l", "click", "-m", "lr", "--epochs", "1"]
    result = run("fit", tmp_path / "log.parquet", *options, "--out", tmp_path / "run", *QUICK)
    assert "warning: " in result.stderr
    assert "'paid'" in result.stderr
    assert "paid" in (tmp_path / "run" / "report.html").read_text()


def test_default_folders_are_numbered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run("fit", folder / "log.parquet", "-l", "click", "-m", "lr", "--epochs", "1", *QUICK)
    assert sorted(p.name for p in Path("runs").iterdir()) == ["log-lr", "log-lr-2"]


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("demo", "--quick", "--model", "lr", "--quiet")
    assert "auc" in result.stdout
    assert Path("runs/demo-lr/report.html").exists()
    metrics = json.loads(Path("runs/demo-lr/metrics.json").read_text())
    assert metrics["test"]["rows"] > 2000
    assert metrics["test"]["auc"] > 0.8


def _fit(folder: Path, out: str, *more: str) -> list[str]:
    options = [
        "-l",
        "click",
        "--ignore",
        "like",
        "-m",
        "dnn",
        "--epochs",
        "30",
        "--set",
        "patience=0",
        "--set",
        "checkpoint_every=5",
    ]
    return ["fit", str(folder / "log.parquet"), *options, "--out", str(folder / out), *QUICK, *more]


def _stop_after_a_checkpoint(arguments: list[str], partial: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a fit in a process, wait for its next checkpoint, and end it."""

    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (partial / "checkpoints").glob("*") if p.exists()}

    before = written()
    process = subprocess.Popen(
        [sys.executable, "-m", "graphrec", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and written() == before:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
def test_killed_and_interrupted_fits_resume_to_the_same_weights(folder: Path) -> None:
    run(*_fit(folder, "whole"))
    partial = folder / "broken.partial"
    code, _ = _stop_after_a_checkpoint(_fit(folder, "broken"), partial, signal.SIGKILL)
    assert code == -signal.SIGKILL, "the fit ended before it could be killed"
    assert not (folder / "broken").exists()
    refused = CliRunner().invoke(app, _fit(folder, "broken"))
    assert refused.exit_code == 2
    assert "broken.partial: holds an unfinished run; continue it with --resume" in refused.stderr
    code, errors = _stop_after_a_checkpoint(_fit(folder, "broken", "--resume"), partial, signal.SIGINT)
    assert code == 130, "the fit ended before it could be interrupted"
    assert len(errors.splitlines()) == 1
    assert "--resume to continue" in errors
    run(*_fit(folder, "broken", "--resume"))
    assert not partial.exists()
    one, two = (load_file(folder / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(np.array_equal(one[key], two[key]) for key in one)
    histories = [CTRClassifier.load(folder / name).history_ for name in ("whole", "broken")]
    losses = [[row["train_loss"] for row in rows] for rows in histories]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 30
