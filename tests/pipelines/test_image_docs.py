"""The examples of docs/images.md run, in order; the drawn shapes; the package's names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from page_examples import Examples

import graphrec.pipelines.images as package
from graphrec.errors import ConfigError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"


def test_the_examples_run(run_examples: Examples) -> None:
    _, printed = run_examples(PAGE, 5)
    assert "classes: circle (30), cross (30), square (30), triangle (30)" in printed
    assert "which column holds the labels is not clear; candidates are shape, drawer" in printed
    assert "{'circle': 30, 'cross': 30, 'square': 30, 'triangle': 30}" in printed
    assert "2 of 121 images cannot be read: shapes/circle/000.png (is broken" in printed
    assert "shapes/square/empty.png (is empty (0 bytes))" in printed
    assert "torch.Size([32, 3, 48, 48]) torch.Size([32]) 96 24" in printed
    assert "True True" in printed
    assert Path("shapes.png").stat().st_size > 10_000


def test_its_picture_is_there() -> None:
    found = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(found) == 1
    assert all((PAGE.parent / name).is_file() for name in found)


def test_every_public_name_exists_and_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in set(package.__all__) - {"ImageSet", "ImageBatch", "decode"}:
        assert getattr(package, name) is not None
        assert name in page
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_drawn_shapes() -> None:
    first, again = package.shape_images(40, 24, seed=1), package.shape_images(40, 24, seed=1)
    assert first.fingerprint() == again.fingerprint() != package.shape_images(40, 24, seed=2).fingerprint()
    assert first.counts() == {"circle": 10, "cross": 10, "square": 10, "triangle": 10}
    assert first.pil(0).size == (24, 24)
    # Without noise a picture has two colours, and what lies between them on the edges.
    clean = np.asarray(package.shape_images(8, 64, noise=0.0).pil(2)).reshape(-1, 3)
    _, counts = np.unique(clean, axis=0, return_counts=True)
    assert np.sort(counts)[-2:].sum() > 0.9 * len(clean)
    with pytest.raises(ConfigError, match="count=0"):
        package.shape_images(0)
