"""Names that a terminal could take for markup are printed as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click_log import click_log
from typer.testing import CliRunner

from graphrec.cli import app

LABEL, FIELD, PATH = "cl[/x]ick", "pri[bold]ce:cat:", "[a]b.parquet"


def run(*arguments: str | Path) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result


def test_brackets_and_colons_in_names_are_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    click_log(300).rename({"click": LABEL, "price": FIELD}).write_parquet(PATH)
    options = ["-l", LABEL, "-l", "like", "--device", "cpu", "--epochs", "1"]
    shown = run("fit", PATH, *options, "--model", "mmoe", "--out", "run", "--set", f"monitor={LABEL}/auc")
    assert f"{LABEL}/auc" in shown.stdout
    assert f"valid {LABEL}/auc" in shown.stderr
    assert PATH in run("evaluate", "run", PATH).stdout
    assert FIELD in run("explain", "run", PATH, "--out", "why", "--repeats", "1").stdout


def test_a_name_with_a_line_break_is_printed_on_one_line(tmp_path: Path) -> None:
    path, out = tmp_path / "log.parquet", tmp_path / "run"
    click_log(300).drop("like").rename({"user_id": "us\ner"}).write_parquet(path)
    run("fit", path, "-l", "click", "-m", "fwfm", "--epochs", "1", "-q", "-o", out)
    lines = run("explain", out, path, "--out", tmp_path / "why", "--repeats", "1").stdout.splitlines()
    assert any("│ us er " in line for line in lines)
    pairs = [line for line in lines if line.startswith("pair: ")]
    assert any("us er" in line for line in pairs)
    assert all("<-" in line for line in pairs)


def test_a_long_path_is_printed_in_one_piece(tmp_path: Path) -> None:
    click_log(200).write_parquet(tmp_path / "log.parquet")
    out = tmp_path / ("long-" * 20) / ("name-" * 20) / "run"
    shown = run("fit", tmp_path / "log.parquet", "-l", "click", "-m", "lr", "--epochs", "1", "-q", "-o", out)
    assert f"report: {out / 'report.html'}" in shown.stdout.splitlines()
