"""The examples of docs/relations.md run, in order, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from page_examples import Examples

import graphrec.graph.relations as package

PAGE = Path(__file__).resolve().parents[2] / "docs" / "relations.md"


def write_files(folder: Path) -> None:
    """Two folds of parsed instances, and three parts of marked sentences."""
    (folder / "nary").mkdir()
    for fold in range(2):
        rows = [
            {
                "token": [
                    "the",
                    f"drug{i % 7}",
                    "helps" if i % 2 else "harms",
                    f"gene{i % 5}",
                    str(i + 50 * fold),
                ],
                "stanford_pos": ["DT", "NN", "VB", "NN", "CD"],
                "stanford_head": [2, 3, 0, 3, -1],
                "stanford_deprel": ["det", "nsubj", "root", "dobj", "self"],
                "relation": "response" if i % 2 else "None",
                "first_start": 1,
                "first_end": 1,
                "second_start": 3,
                "second_end": 3,
            }
            for i in range(40)
        ]
        (folder / "nary" / f"fold{fold}.test.json").write_text(json.dumps(rows))
    for part in ("train", "dev", "test"):
        lines = [
            {"text": f"<< a{i} >> {'blocks' if i % 2 else 'makes'} the [[ b{i % 3} ]]", "label": "XY"[i % 2]}
            for i in range(20)
        ]
        (folder / f"{part}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_the_examples_run(run_examples: Examples) -> None:
    write_files(Path())
    _, printed = run_examples(PAGE, 5)
    assert "'accuracy'" in printed
    assert "window" in printed
    assert Path("attention.png").stat().st_size > 1000


def test_every_public_name_exists() -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing
