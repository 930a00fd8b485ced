"""Relations by recipes: folds, files of parts, whole texts; every variant; what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from graphrec.errors import ConfigError, DataError
from graphrec.graph.relations import RelationExtractor
from graphrec.pipelines.recipes import SOURCES, SPLITS, DataFolder, Divided
from graphrec.registry import card
from graphrec.running import run_recipe

QUICK: dict[str, Any] = {
    "training.epochs": 1,
    "model.options.hidden": 8,
    "model.options.word_dim": 8,
    "model.options.sublayers": 2,
    "training.min_count": 1,
}


def nary(folder: Path) -> None:
    """Five folds of parsed instances."""
    folder.mkdir(parents=True)
    for fold in range(5):
        rows = [
            {
                "token": [
                    "the",
                    f"drug{i % 3}",
                    ("harms", "helps")[i % 2],
                    f"gene{i % 5}",
                    f"t{8 * fold + i}",
                ],
                "stanford_pos": ["DT", "NN", "VB", "NN", "NN"],
                "stanford_head": [2, 3, 0, 3, -1],
                "stanford_deprel": ["det", "nsubj", "root", "dobj", "self"],
                "relation": ("None", "response")[i % 2],
                **{
                    f"{name}_{end}": 2 * k + 1
                    for k, name in enumerate(("first", "second"))
                    for end in ("start", "end")
                },
            }
            for i in range(8)
        ]
        raw = json.dumps(rows).encode()
        (folder / f"fold{fold}.test.json.gz").write_bytes(gzip.compress(raw))


def test_the_recipe_of_folds_runs_with_every_variant(tmp_path: Path) -> None:
    nary(tmp_path / "pubmed_nary" / "ternary")
    run = run_recipe(
        "bioie-ternary", tmp_path / "run", data=tmp_path, changes=QUICK, variants=["all"], seeds=1
    )
    assert set(run.summary) == {"bioie", "bioie-and-tfidf", "aggcn", "cgcn", "bilstm", "tfidf"}
    for found in run.summary.values():
        assert 0 <= found["test/f1"]["mean"] <= 1
    assert (run.folder / "figures" / "bioie-attention.png").exists()
    assert (run.folder / "figures" / "tfidf-confusion.svg").exists()
    assert not (run.folder / "figures" / "bilstm-attention.png").exists()
    model = RelationExtractor.load(
        run.folder / "repetitions" / "bioie-and-tfidf" / "seed-0-split-0" / "model"
    )
    assert model.classes_.tolist() == ["None", "response"]
    assert run.recipe.published["aggcn"] == card("aggcn").published["n-ary ternary accuracy, five classes"]


def test_the_recipe_of_chemprot_runs(tmp_path: Path) -> None:
    (tmp_path / "chemprot").mkdir()
    for part in ("train", "dev", "test"):
        lines = [
            json.dumps({"text": f"<< a{i} >> meets [[ b{i % 3} ]]", "label": "XY"[i % 2]}) for i in range(12)
        ]
        (tmp_path / "chemprot" / f"{part}.jsonl").write_text("\n".join(lines))
    run = run_recipe("bioie-chemprot", tmp_path / "run", data=tmp_path, changes=QUICK, variants=["bioie"])
    assert run.repetitions[0].facts["parameters"] > 0
    with pytest.raises(DataError, match=r"data.train: .*train.jsonl is missing"):
        run_recipe("bioie-chemprot", tmp_path / "other", data=tmp_path / "run", changes=QUICK)


def test_whole_texts_of_one_file(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"<< a >> of [[ b ]] {i // 2}", "label": "XY"[i % 2]}) for i in range(40)]
    (tmp_path / "one.jsonl").write_text("\n".join(lines))
    folder = DataFolder.find(tmp_path, "")
    found = SOURCES.call({"source": "relation_file", "path": "one.jsonl"}, folder)
    for data in (found, Divided(found, [])):
        [split] = SPLITS.call({"kind": "whole_texts", "valid": 0.2, "test": 0.3}, data, 0, folder)
        assert (len(split.train), len(split.valid), len(split.test)) == (20, 8, 12)
        assert not set(found.text[split.train].tolist()) & set(found.text[split.test].tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name": "gin"}, "model: model='gin': is for another task"),
        ({"model.options.width": 2}, "model: width: bioie has no such option"),
        ({"model.options.hidden": 9}, "model: hidden=9: must be a multiple of"),
        ({"training.marks": 2}, "training.marks: there is no such setting"),
        ({"split": {"kind": "random"}}, "split.kind: 'random' does not divide what 'nary_folds' gives"),
    ],
)
def test_what_is_wrong_is_named_before_data_are_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_recipe("bioie-ternary", tmp_path / "run", changes=changes, variants=["bioie"])
