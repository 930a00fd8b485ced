"""The code on the documentation page of the kernels runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import graphrec.kernels
from graphrec.kernels import patterns

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"


def test_the_page_runs() -> None:
    torch.manual_seed(0)
    pieces = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(pieces) >= 11
    names: dict[str, object] = {}
    for number, piece in enumerate(pieces):
        exec(compile(piece, f"{PAGE.name}, piece {number}", "exec"), names)


@pytest.mark.parametrize("name", sorted({*patterns.__all__, *graphrec.kernels.__all__}))
def test_the_page_names_everything(name: str) -> None:
    machinery = {"And", "BlockPlan", "Explanation", "Or", "Pattern", "TilePlan", "decode", "encode"}
    assert name in machinery or re.search(rf"\b{name}\b", PAGE.read_text(encoding="utf-8"))
