"""The examples of docs/image_classifier.md run, in order."""

from __future__ import annotations

import re
from pathlib import Path

from page_examples import Examples
from sklearn.base import BaseEstimator

from graphrec.vision import ImageClassifier

PAGE = Path(__file__).resolve().parents[2] / "docs" / "image_classifier.md"


def test_the_examples_run(run_examples: Examples) -> None:
    names, printed = run_examples(PAGE, 3)
    assert "['square'] ['square']" in printed
    assert names["model"].metrics_["test"]["accuracy"] > 0.9


def test_every_argument_that_the_page_names_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("| argument |") : page.index("The optimiser is")]
    named = {
        name
        for line in table.splitlines()
        if "|" in line
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    model: BaseEstimator = ImageClassifier()
    assert named
    assert named <= set(model.get_params())
