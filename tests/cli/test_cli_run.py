"""`graphrec run` from the shell: lists, shows, runs, resumes, and says in one line what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from graphrec.cli import app
from graphrec.pipelines.recipes import read_recipe

TINY = ["run", "karate", "--seeds", "1", "--only", "gcn", "--set", "training.epochs=2", "--quiet"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a folder of its own, without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRAPHREC_DATA", raising=False)


def test_recipes_are_listed() -> None:
    text = run("run", "--list").output
    assert "histograph-mutag" in text
    assert "lighthgnn-ca-cora-production" in text
    assert " _tu " not in text


def test_a_recipe_is_shown_with_its_changes_and_can_be_run_as_shown() -> None:
    result = run("run", "karate", "--show", "--set", "training.epochs=2", "--seeds", "3,7")
    assert result.exit_code == 0
    shown = yaml.safe_load(result.output)
    assert shown["repeat"]["seeds"] == [3, 7]
    assert read_recipe(shown).training["epochs"] == 2
    assert not list(Path().iterdir())


def test_a_run_ends_in_a_folder_and_a_table() -> None:
    result = run(*TINY)
    assert result.exit_code == 0, result.output
    assert "test/accuracy" in result.output
    assert "runs/karate/report.html" in result.output
    metrics = json.loads(Path("runs/karate/metrics.json").read_text())
    assert list(metrics["summary"]) == ["gcn"]
    again = run(*TINY)
    assert again.exit_code == 2
    assert "runs/karate: the run folder exists already; name another with --out" in again.output
    assert run(*TINY, "--overwrite").exit_code == 0


WRONG = {
    "no recipe": (["run"], "RECIPE: name a recipe or a YAML file"),
    "unknown": (["run", "karat"], "there is no 'karat'; did you mean karate?"),
    "no file": (["run", "mine.yaml"], "mine.yaml: there is no such recipe file"),
    "seeds": (["run", "karate", "--seeds", "some"], "--seeds: expected a number such as 5"),
    "no seed": (["run", "karate", "--seeds", "0"], "repeat.seeds: must be a number from 1 up"),
    "set": (["run", "karate", "--set", "epochs"], "--set: expected key=value, found 'epochs'"),
    "key": (
        ["run", "karate", "--set", "trainin.epochs=2"],
        "trainin: there is no such key; did you mean train",
    ),
    "value": (["run", "karate", "--set", "training.epochs=x"], "training.epochs: should be a valid integer"),
    "variant": (["run", "karate", "--only", "gnc"], "variants: there is no 'gnc'; did you mean gcn?"),
    "data": (
        ["run", "histograph-cora"],
        "data.path: planetoid is missing (below the current folder); it can",
    ),
    "folder": (["run", "karate", "--data", "nowhere"], "--data: nowhere is not a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_said_in_one_line_and_leave_nothing(case: str) -> None:
    arguments, message = WRONG[case]
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(Path().iterdir())
