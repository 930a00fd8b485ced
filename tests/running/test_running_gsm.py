"""The recipes of GSM++ on generated graphs run, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphrec.running import run_recipe


@pytest.mark.parametrize(
    ("name", "variant"), [("gsm-connectivity", "gsm++"), ("gsm-connectivity", "gcn"), ("gsm-colours", "gsm")]
)
def test_recipes_run(tmp_path: Path, name: str, variant: str) -> None:
    changes = {"data.graphs": 40, "training.epochs": 1, "repeat.seeds": 1}
    run = run_recipe(name, tmp_path / "run", changes=changes, variants=[variant])
    assert 0 <= run.summary[variant]["test/accuracy"]["mean"] <= 1
    assert (tmp_path / "run" / "report.html").exists()
