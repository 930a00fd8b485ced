"""The examples of docs/graph_sequences.md run, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphrec.graph.gsm as package

PAGE = Path(__file__).resolve().parents[2] / "docs" / "graph_sequences.md"


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, example {number + 1}", "exec"), names)
    assert "torch.Size([2000, 3])" in capsys.readouterr().out
    assert (tmp_path / "tree.png").stat().st_size > 1000


def test_every_public_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
