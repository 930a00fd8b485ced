"""The examples of docs/graph_sequences.md run, in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_examples import Examples

import graphrec.graph.gsm as package

PAGE = Path(__file__).resolve().parents[2] / "docs" / "graph_sequences.md"


def test_the_examples_run(run_examples: Examples) -> None:
    _, printed = run_examples(PAGE, 3)
    assert "torch.Size([2000, 3])" in printed
    assert Path("tree.png").stat().st_size > 1000


def test_every_public_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
