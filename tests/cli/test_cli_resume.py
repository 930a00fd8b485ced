"""Runs that were stopped, and what may and may not be different when they go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from click_log import click_log
from typer.testing import CliRunner

from graphrec import CTRClassifier, runs
from graphrec.cli import app
from graphrec.errors import RunError
from graphrec.estimators import comparing, persistence

OPTIONS = ["-l", "click", "--ignore", "like", "--epochs", "1", "--device", "cpu", "--quiet"]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def _stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | Path]:
    """The command of a run that was stopped before its report was written."""
    click_log(400).write_parquet(tmp_path / "log.parquet")
    click_log(100, seed=1).write_parquet(tmp_path / "valid.parquet")
    command = ["fit", tmp_path / "log.parquet", "-m", "lr", *OPTIONS, "--out", tmp_path / "run"]
    command += ["--valid", tmp_path / "valid.parquet"]
    with monkeypatch.context() as patched:
        patched.setattr(persistence, "write_run_report", _stop)
        assert invoke(*command).exit_code == 130
    return [*command, "--resume"]


def test_a_run_goes_on_with_files_that_were_copied_again_or_moved(
    stopped: list[str | Path], tmp_path: Path
) -> None:
    os.utime(tmp_path / "log.parquet", (1, 1))
    (tmp_path / "later").mkdir()
    moved = (tmp_path / "valid.parquet").rename(tmp_path / "later" / "v.parquet")
    found = invoke(*stopped, "--valid", moved)
    assert found.exit_code == 0, found.output
    assert len(CTRClassifier.load(tmp_path / "run").history_) == 1


@pytest.mark.parametrize("file", ["log.parquet", "valid.parquet"])
def test_a_run_does_not_go_on_with_other_rows(stopped: list[str | Path], tmp_path: Path, file: str) -> None:
    rows = pl.read_parquet(tmp_path / file)
    rows.with_columns(click=1 - pl.col("click")).write_parquet(tmp_path / file)
    found = invoke(*stopped)
    assert found.exit_code == 2
    assert "run.partial: the data changed since it was started" in found.stderr
    rows.write_parquet(tmp_path / file)
    assert invoke(*stopped).exit_code == 0


def test_a_setting_that_changes_the_rows_is_named_before_they_are(
    stopped: list[str | Path], tmp_path: Path
) -> None:
    found = invoke(*stopped, "--test", "0.3")
    assert found.exit_code == 2
    assert "run.partial: was started with test=None, not 0.3" in found.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--test", "0.4"], "test=0.2, not 0.4"),
        (["--split", "order"], "split='random', not 'order'"),
        (["--role", "hour=ignored"], "roles.hour=None, not 'ignored'"),
    ],
)
def test_a_comparison_does_not_go_on_with_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: list[str], said: str
) -> None:
    """Its table would hold models that were measured on different rows."""
    click_log(400).write_parquet(tmp_path / "log.parquet")
    command = ["compare", tmp_path / "log.parquet", "--models", "lr", *OPTIONS, "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "_write", _stop)
        assert invoke(*command, "--test", "0.2").exit_code == 130
    found = invoke(*command, "--test", "0.2", "--resume", *change)
    assert found.exit_code == 2
    assert f"run.partial: was started with {said}" in found.stderr


def test_a_comparison_on_a_full_disk_is_not_finished_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RunError("report.html: cannot be written (No space left on device)")

    click_log(400).write_parquet(tmp_path / "log.parquet")
    command = ["compare", tmp_path / "log.parquet", "--models", "lr,fm", *OPTIONS, "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(persistence, "write_run_report", full)
        stopped = invoke(*command)
    assert stopped.exit_code == 2
    assert "cannot be written (No space left on device)" in stopped.stderr
    assert invoke(*command, "--resume").exit_code == 0
    assert sorted(pl.read_csv(tmp_path / "run" / "comparison.csv")["model"]) == ["fm", "lr"]


def test_a_disk_too_full_for_the_table_of_a_comparison_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device (os error 28)")  # as polars says it, without the file

    click_log(400).write_parquet(tmp_path / "log.parquet")
    command = ["compare", tmp_path / "log.parquet", "--models", "lr", *OPTIONS, "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_csv", full)
        stopped = invoke(*command)
    assert stopped.exit_code == 2
    assert f"{tmp_path / 'run.partial'}: cannot be written (No space left on device" in stopped.stderr
    assert invoke(*command, "--resume").exit_code == 0


def test_of_several_processes_one_writes_and_prints_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All wrote the table and the page, into a folder to which the first may have given its name by then."""
    click_log(400).write_parquet(tmp_path / "log.parquet")
    for module in (runs, comparing):
        monkeypatch.setattr(module, "is_main_process", lambda: False)
    command = ["compare", tmp_path / "log.parquet", "--models", "lr", *OPTIONS, "--out", tmp_path / "run"]
    other = invoke(*command)
    assert (other.exit_code, other.output) == (0, "")
    assert [path.name for path in (tmp_path / "run.partial").iterdir() if path.is_file()] == ["config.yaml"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"3"])
def test_a_comparison_whose_rows_a_power_cut_damaged_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    click_log(400).write_parquet(tmp_path / "log.parquet")
    command = ["compare", tmp_path / "log.parquet", "--models", "lr", *OPTIONS, "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "_write", _stop)
        assert invoke(*command).exit_code == 130
    (tmp_path / "run.partial" / "comparison.json").write_bytes(content)
    found = invoke(*command, "--resume")
    assert found.exit_code == 0, found.output
    assert "comparison.json: " in found.stderr
    assert "; its models are fitted again" in found.stderr


@pytest.mark.parametrize("file", ["model.safetensors", "run.json"])
def test_a_finished_model_of_a_comparison_that_is_damaged_is_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    click_log(400).write_parquet(tmp_path / "log.parquet")
    command = ["compare", tmp_path / "log.parquet", "--models", "lr", *OPTIONS, "--out", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(comparing, "_write", _stop)
        assert invoke(*command).exit_code == 130
    (tmp_path / "run.partial" / "lr" / file).write_bytes(b"")  # as a power cut leaves it
    found = invoke(*command, "--resume")
    assert found.exit_code == 0, found.output
    assert "; that model is fitted again" in found.stderr
    assert len(CTRClassifier.load(tmp_path / "run" / "lr").history_) == 1
