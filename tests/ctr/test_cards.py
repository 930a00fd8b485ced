"""Cards tell the truth: each check that they name exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from graphrec.registry import card, list_models

ROOT = Path(__file__).parents[2]
MODELS = list_models(task="ctr")


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", MODELS)
def test_verified_entries_name_tests(name: str) -> None:
    entries = card(name).verified
    assert entries, f"{name} verifies nothing"
    for what, test in entries.items():
        file, function = test.split("::")
        assert function in functions(ROOT / file), what


@pytest.mark.parametrize("name", MODELS)
def test_facts_are_complete(name: str) -> None:
    facts = card(name)
    assert facts.paper.startswith("https://")
    assert facts.code == "" or facts.code.startswith("https://")
    assert not facts.licence or facts.code, "a licence belongs to code"
    assert all(0 < figure < 1 for figure in facts.published.values())
