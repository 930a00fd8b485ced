"""What the command line looks like before any command runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from graphrec.cli import app

FIT = ["fit", "log.parquet", "-l", "click"]
COMMANDS = [
    "fit",
    "predict",
    "evaluate",
    "explain",
    "export",
    "compare",
    "models",
    "schema",
    "doctor",
    "demo",
    "run",
]


def test_help_names_every_command_and_shows_examples() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    assert all(name in text for name in COMMANDS)
    assert "graphrec demo" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches_by_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"graphrec {name}" in result.output


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_come_at_once_and_without_torch(argument: str) -> None:
    code = f"""
import sys
sys.argv = ["graphrec", {argument!r}]
from graphrec.cli import main
try:
    main()
finally:
    assert not {{"torch", "polars", "sklearn"}} & set(sys.modules)
"""
    start = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "graphrec" in done.stdout
    assert time.process_time() - start < 1


def test_unknown_options_and_missing_arguments_exit_with_2() -> None:
    assert CliRunner().invoke(app, ["fit"]).exit_code == 2
    unknown = CliRunner().invoke(app, ["fit", "x", "--no-such-option"])
    assert unknown.exit_code == 2
    assert "--no-such-option" in unknown.stderr


@pytest.mark.parametrize("option", ["--set", "--role"])
def test_a_setting_given_twice_is_refused(option: str) -> None:
    result = CliRunner().invoke(app, [*FIT, option, "price=1", option, "price=2"])
    assert result.exit_code == 2
    assert f"{option}: price is given twice, the second time by 'price=2'; keep one" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([*FIT, "--epochs", "1", "--set", "epochs=2"], "epochs.*as 1"),
        ([*FIT, "--lr", "1", "--set", "learning_rate=2"], "learning_rate.*as 1.0"),
        (["fit", "x", "--task", "image", "--seed", "3", "--set", "random_state=4"], "random_state.*as 3"),
        (["run", "histograph-mutag", "--seeds", "2", "--set", "repeat.seeds=3"], "repeat.seeds.*as 2"),
    ],
)
def test_what_an_option_and_set_both_give_is_refused(arguments: list[str], found: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert re.search(f"--set: {found}; keep one", result.stderr)


@pytest.mark.parametrize("more", [[], ["--task", "image"]])
def test_a_patience_that_makes_no_sense_is_refused_the_same_way(more: list[str]) -> None:
    for given in (["--patience", "-1"], ["--set", "patience=-1"]):
        result = CliRunner().invoke(app, [*FIT, *more, *given])
        assert result.exit_code == 2
        assert "patience: should be greater than or equal to 0, got -1" in result.stderr


def test_more_processes_than_cores_are_refused() -> None:
    cores = os.cpu_count()
    given = [*FIT, "--device", "cpu", "--devices", "9999"]
    for more in ([], ["--task", "image"]):
        result = CliRunner().invoke(app, [*given, *more])
        assert result.exit_code == 2
        assert "devices=9999: on a CPU that is as many processes" in result.stderr
        assert f"this machine has {cores} core" in result.stderr


def test_a_reader_that_stops_early_is_no_error_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("click,price\n0,1.5\n1,2.5\n")
    command = [sys.executable, "-m", "graphrec", "schema", "log.csv", "-l", "click"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


def test_a_closed_standard_output_is_no_error() -> None:
    code = (
        "import sys; sys.stdout = None; sys.argv = ['graphrec', 'run', '--list'];"
        "from graphrec.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_comparison_that_is_wider_than_the_terminal_has_a_column_per_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphrec.cli import compare

    metrics = dict.fromkeys(("auc", "logloss", "ne", "pr_auc", "ece"), 0.12345)
    facts = {"part": "valid", "parameters": 1234567, "epochs": 1.0, "seconds": 2.5}
    table = pl.DataFrame([{"model": name, **metrics, **facts} for name in ("lr", "shared_bottom")])
    for width, header in ((140, r"┃ model +┃ +auc ┃"), (60, r"┃ metric +┃ +lr ┃ shared_bottom ┃")):
        monkeypatch.setattr(compare, "console", lambda width=width: Console(width=width))
        compare._print(table, "log.parquet")
        shown = capsys.readouterr().out
        assert re.search(header, shown)
        assert "…" not in shown
        assert "1,234,567" in shown


def test_models_as_table_and_as_json() -> None:
    table = CliRunner().invoke(app, ["models", "--task", "ctr"])
    assert table.exit_code == 0
    assert "fcn" in table.output
    found = json.loads(CliRunner().invoke(app, ["models", "*int*", "--json"]).output)
    assert "autoint" in [model["name"] for model in found]
    assert "embedding_dim" in found[0]["options"]


def test_doctor_says_what_is_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    found = {(f["section"], f["name"]): f["value"] for f in json.loads(result.output)}
    import torch

    assert found["versions", "torch"] == version("torch")
    assert found["processor", "threads"] == str(torch.get_num_threads())
    assert {"avx512_bf16", "amx"} <= {name for section, name in found if section == "processor"}
    from graphrec.kernels.catalogue import CALLS

    device = "triton" if torch.cuda.is_available() else "torch"
    assert {"triton", "interpreter", "settings", *CALLS} == {
        name for section, name in found if section == "kernels"
    }
    assert found["kernels", "attention"] == device
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
