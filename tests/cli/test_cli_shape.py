"""What the command line looks like before any command runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from graphrec.cli import app

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
