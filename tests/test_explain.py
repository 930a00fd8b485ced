"""Explanations: they find what the labels really depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from click_log import click_log

from graphrec import CTRClassifier
from graphrec.errors import ConfigError
from graphrec.explain import Explanation, explain_model, sample_batch
from graphrec.pipelines.tables import Batch, Features, FeatureSpec, Field
from graphrec.registry import list_models

SPEC = FeatureSpec(
    (
        Field("a", "categorical", size=10),
        Field("x", "numeric"),
        Field("items", "multi", size=10, length=2),
        Field("b", "categorical", size=10),
        Field("y", "numeric"),
        Field("past", "sequence", size=10, length=3),
    ),
    ("click",),
)


class Known(torch.nn.Module):
    """A 'model' whose score is 3 y + b + (the last item of the list field ``past``)."""

    spec = SPEC

    def predict(self, batch: Batch) -> torch.Tensor:
        f = batch.features
        return torch.sigmoid(3 * f.numeric[:, 1] + f.categorical[:, 1] / 5 + f.lists[1][:, 2] / 20 - 2)[
            :, None
        ]

    def field_interactions(self, features: Features) -> torch.Tensor:
        return torch.arange(36.0).reshape(6, 6) * features.numeric[:, 0].mean()


def known_batch(rows: int) -> Batch:
    draw = torch.Generator().manual_seed(0)

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(1, 10, shape, generator=draw, dtype=torch.int32)

    features = Features(ids(rows, 2), torch.randn(rows, 2, generator=draw), (ids(rows, 2), ids(rows, 3)))
    truth = Known().predict(Batch(features, torch.zeros(rows, 1)))
    return Batch(features, (torch.rand(rows, 1, generator=draw) < truth).float())


def test_importance_finds_exactly_the_fields_that_are_used() -> None:
    found = explain_model(Known(), known_batch(3000), model="known", chunk=700)
    drops = dict(found.importance.select("field", "auc_drop").iter_rows())
    assert list(drops)[:3] == ["y", "b", "past"]
    assert drops["y"] > 0.15 > drops["b"] > 0.005 > drops["past"] > 0
    assert drops["a"] == drops["x"] == drops["items"] == 0
    assert found.importance["std"].max() < 0.05
    assert found.auc is not None
    assert found.rows == 3000


def test_shuffling_leaves_the_given_rows_as_they_were() -> None:
    batch = known_batch(200)
    copy = Batch(
        Features(*(t.clone() for t in batch.features[:2]), tuple(t.clone() for t in batch.features.lists)),
        batch.labels,
    )
    explain_model(Known(), batch)
    assert torch.equal(batch.features.categorical, copy.features.categorical)
    assert torch.equal(batch.features.numeric, copy.features.numeric)
    assert all(torch.equal(a, b) for a, b in zip(batch.features.lists, copy.features.lists, strict=True))


def test_the_matrix_is_the_mean_over_all_rows_and_the_pairs_are_its_entries() -> None:
    batch = known_batch(1000)
    found = explain_model(Known(), batch, chunk=333)
    expected = np.arange(36.0).reshape(6, 6) * float(batch.features.numeric[:, 0].mean())
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-4)
    pairs = {(r["field"], r["other"]): r["strength"] for r in found.pairs.to_dicts()}
    assert len(pairs) == 30
    assert pairs["b", "a"] == pytest.approx(expected[3, 0], rel=1e-4)


def test_one_class_has_no_importance_and_says_so() -> None:
    batch = known_batch(50)._replace(labels=torch.ones(50, 1))
    found = explain_model(Known(), batch)
    assert found.auc is None
    assert found.importance["auc_drop"].null_count() == 6


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return click_log(500)


@pytest.mark.parametrize("name", ["fcn", "autoint", "dcnv2", "fwfm", "lr", "din"])
def test_models_explain_themselves_on_real_fields(name: str, log: pl.DataFrame) -> None:
    model = CTRClassifier(
        name, epochs=3, batch_size=64, learning_rate=0.05, accelerator="cpu", random_state=0
    )
    found = model.fit(log, label="click", ignore=["like"]).explain(click_log(400, seed=3), repeats=2)
    assert found.importance.shape == (5, 3)
    assert set(found.importance["field"].head(3)) >= {"user_id", "price"}
    if name in ("lr", "din"):
        assert found.matrix is None
        assert len(found.pairs) == 0
    else:
        assert found.matrix is not None
        assert found.matrix.shape == (5, 5)
        assert (found.matrix >= 0).all()


def test_files_and_pictures(tmp_path: Path, log: pl.DataFrame) -> None:
    model = CTRClassifier("fm", epochs=1, batch_size=64, accelerator="cpu", random_state=0)
    model.fit(log.drop("like"), label="click")
    found = model.explain(log.drop("click", "like"), log["click"].to_numpy(), rows=200, repeats=1)
    assert found.rows == 200
    files = {file.name: file.stat().st_size for file in found.write(tmp_path / "out")}
    assert {"importance.csv", "importance.png", "importance.svg"} <= set(files)
    assert min(files.values()) > 50
    assert pl.read_csv(tmp_path / "out" / "importance.csv").columns == ["field", "auc_drop", "std"]


def test_of_many_fields_the_strongest_are_drawn(tmp_path: Path) -> None:
    fields = tuple(f"field {i}" for i in range(120))
    matrix = np.add.outer(np.arange(120.0), np.arange(120.0))
    nothing = pl.DataFrame(schema={"field": pl.String, "auc_drop": pl.Float64, "std": pl.Float64})
    Explanation("m", nothing, pl.DataFrame(), fields, matrix, None, 1).plot(tmp_path, formats=["svg"])
    text = (tmp_path / "interactions.svg").read_text()
    assert "<!-- strength (the strongest 100 of 120 fields) -->" in text
    assert [f"<!-- field {i} -->" in text for i in (19, 20, 119)] == [False, True, True]


def test_sample_is_drawn_from_the_whole_table_without_repetition(log: pl.DataFrame) -> None:
    model = CTRClassifier("lr", epochs=1, accelerator="cpu", random_state=0).fit(
        log.drop("like"), label="click"
    )
    numbered = log.with_columns(price=pl.Series(np.linspace(-2, 2, 500)))
    sample = sample_batch(model.encoder_.encode(numbered, require_labels=True), 100, seed=1)
    values = sample.features.numeric[:, -1]
    assert len(values.unique()) == 100
    assert (values.diff() > 0).all()


def test_there_is_a_model_of_each_sort() -> None:
    assert {"fcn", "autoint", "lr"} <= set(list_models(task="ctr"))


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    rows = pl.DataFrame({"x": np.random.default_rng(0).normal(size=80), "y": [0, 1] * 40})
    model = CTRClassifier("fm", epochs=1, accelerator="cpu", random_state=0).fit(rows, label="y")
    alone = {file.name for file in model.explain(rows, repeats=1).write(tmp_path / "one field")}
    assert alone == {"importance.csv", "importance.png", "importance.svg"}  # one field makes no pair
    found = model.explain(rows.filter(pl.col("y") == 1), repeats=1)  # of which AUC is undefined
    assert {file.name for file in found.write(tmp_path / "one class")} == {"importance.csv"}
    with pytest.raises(ConfigError, match="repeats=0: must be a whole number"):
        model.explain(rows, repeats=0)
