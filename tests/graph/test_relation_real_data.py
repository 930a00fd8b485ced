"""The ternary drug-gene-mutation set, fold 0, briefly; `benchmarks/bioie.py` measures all sets in full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphrec.graph.relations import RelationExtractor
from graphrec.pipelines.relations import read_nary_folds

pytestmark = pytest.mark.data


def real() -> Path:
    """A folder below the one that GRAPHREC_DATA names; the test is skipped without it."""
    path = Path(os.environ.get("GRAPHREC_DATA", ""), "pubmed_nary", "ternary")
    if "GRAPHREC_DATA" not in os.environ or not path.exists():
        pytest.skip("set GRAPHREC_DATA to a folder that holds pubmed_nary/ternary")
    return path


def test_two_epochs_are_better_than_seven_in_ten_on_texts_that_training_never_saw() -> None:
    relations, folds = read_nary_folds(real(), drop_shared=True)
    split = folds[0]
    assert not set(relations.text[split.train].tolist()) & set(relations.text[split.test].tolist())
    model = RelationExtractor(
        model_options={"hidden": 64, "word_dim": 64, "heads": 2},
        epochs=2,
        train_options={"scheduler": "cosine"},
        random_state=0,
    )
    model.fit(relations, split=split)
    assert model.facts_["edges"] == "tree"
    accuracy = model.metrics_["test"]["accuracy"]
    assert accuracy is not None
    assert accuracy > 0.7
    floor = RelationExtractor("tfidf").fit(relations, split=split).metrics_["test"]["accuracy"]
    assert floor == pytest.approx(0.834, abs=0.01)
