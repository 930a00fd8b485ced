"""The examples of docs/vision.md run, in order."""

from __future__ import annotations

from pathlib import Path

from page_examples import Examples

from graphrec import vision

PAGE = Path(__file__).resolve().parents[2] / "docs" / "vision.md"


def test_the_examples_run(run_examples: Examples) -> None:
    names, printed = run_examples(PAGE, 5)
    assert "[(2, 8, 8, 8), (2, 16, 4, 4)] [4, 8]" in printed
    assert "uint8 ['rows', 3, 32, 32] probability" in printed
    assert names["logits"].shape == (2, 10)
    assert Path("official.safetensors").exists()
    assert Path("model.pt2").stat().st_size > 10_000
    assert Path("attention.png").stat().st_size > 10_000


def test_the_page_names_the_contract() -> None:
    page = PAGE.read_text(encoding="utf-8")
    methods = {name for name in vars(vision.Backbone) if not name.startswith("_")}
    internal = {"prune_intermediate_layers", "fixed_size", "keys", "layout", "final_layout", "stem_pattern"}
    assert {name for name in methods - internal if f"`{name}" not in page} == set()


def test_every_public_name_exists() -> None:
    assert all(getattr(vision, name) is not None for name in vision.__all__)
