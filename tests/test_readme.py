"""The examples of README.md and of the quickstart run as printed, on a few rows of the demo data set."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from graphrec.data import DEMO_LABEL, demo_path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "docs/quickstart.md", "docs/tables.md", "docs/recipes.md"]
FOLLOW = """
import json, sys
page = json.loads(sys.argv[1])
exec(page["python"], {})
from graphrec.cli import app
for arguments in page["commands"]:
    print("graphrec", *arguments, flush=True)
    code = app(arguments, standalone_mode=False)
    assert not code, code
"""
"""Does what a page shows, in its order, in one process: starting one for each command takes far longer."""


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a language, in the order of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """Arguments of every `graphrec` command of a page."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("graphrec ")]


def follow(page: str, folder: Path) -> None:
    """Run a page's Python and then its commands in a folder; fail with all that they printed."""
    steps = {"python": "\n".join(blocks(page, "python")), "commands": commands(page)}
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW, json.dumps(steps)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the examples name."""
    rows = pl.read_parquet(demo_path()).rename({DEMO_LABEL: "click"}).sample(900, seed=0)
    rows.head(600).write_parquet(tmp_path / "clicks.parquet")
    rows.tail(300).write_parquet(tmp_path / "tomorrow.parquet")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page: str, folder: Path) -> None:
    assert blocks(page, "python")
    follow(page, folder)
    for arguments in commands(page):
        if "--out" in arguments:
            assert (folder / arguments[arguments.index("--out") + 1]).exists()


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_pages_show_the_main_commands(page: str) -> None:
    assert {arguments[0] for arguments in commands(page)} >= {
        "schema",
        "fit",
        "predict",
        "evaluate",
        "compare",
    }


def test_readme_offers_one_command_to_run_and_one_to_test() -> None:
    installs = [block for block in blocks("README.md", "bash") if "pip install" in block]
    assert [len(block.splitlines()) for block in installs] == [1, 1]
    assert installs[0].rstrip().endswith(".venv/bin/graphrec demo")
    assert installs[1].rstrip().endswith(".venv/bin/python -m pytest -n auto")


def test_every_command_is_mentioned_in_the_readme() -> None:
    from graphrec.cli import app

    names = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {name for name in names if not re.search(rf"graphrec {name}\b|`{name}`", text)} == set()
