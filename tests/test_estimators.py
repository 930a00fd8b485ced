"""`CTRClassifier` on tables and arrays: fit, predict, measure."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click_log import click_log
from quick_models import IGNORE, quick
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from graphrec import CTRClassifier
from graphrec.errors import ConfigError, DataError, NonFiniteLossError, SchemaError
from graphrec.estimators.fitting import pick_batch_size
from graphrec.estimators.writing import write_scores
from graphrec.pipelines.tables import Split, TableEncoder, TableSchema


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return click_log(800)


@pytest.fixture(scope="module")
def fitted(log: pl.DataFrame) -> CTRClassifier:
    return quick().fit(log, label="click", ignore=IGNORE)


def test_fit_on_a_path_learns_and_sets_what_scikit_learn_expects(tmp_path: Path, log: pl.DataFrame) -> None:
    log.write_parquet(tmp_path / "log.parquet")
    model = quick().fit(tmp_path / "log.parquet", label="click", ignore=IGNORE)
    assert model.classes_.tolist() == [0, 1]
    assert list(model.feature_names_in_) == ["user_id", "item", "hour", "price", "item_history"]
    assert model.n_features_in_ == 5
    assert model.history_[-1]["epoch"] >= 1
    assert model.metrics_["valid"]["rows"] == 80
    unseen = click_log(800, seed=1)
    proba = model.predict_proba(unseen)
    assert proba.shape == (800, 2)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert roc_auc_score(unseen["click"], proba[:, 1]) > 0.7


@pytest.mark.parametrize(
    "form", ["parquet", "csv", "glob", "folder", "list", "lazy", "pandas", "arrow", "dict"]
)
def test_every_form_of_table_gives_the_same_scores(
    tmp_path: Path, log: pl.DataFrame, fitted: CTRClassifier, form: str
) -> None:
    log = log.drop("item_history") if form == "csv" else log
    log.write_parquet(tmp_path / "part-0.parquet")
    forms = {
        "parquet": str(tmp_path / "part-0.parquet"),
        "csv": tmp_path / "log.csv",
        "glob": str(tmp_path / "*.parquet"),
        "folder": tmp_path,
        "list": [tmp_path / "part-0.parquet"],
        "lazy": log.lazy(),
        "pandas": log.to_pandas() if form == "pandas" else None,
        "arrow": log.to_arrow(),
        "dict": log.to_dict(as_series=False),
    }
    if form == "csv":
        log.write_csv(tmp_path / "log.csv")
        expected = quick().fit(log, label="click", ignore=IGNORE).predict_proba(log)
    else:
        expected = fitted.predict_proba(log)
    model = quick().fit(forms[form], label="click", ignore=IGNORE)
    np.testing.assert_allclose(model.predict_proba(forms[form]), expected, atol=1e-6)


def test_same_seed_same_model_other_seed_another(log: pl.DataFrame, fitted: CTRClassifier) -> None:
    again = quick().fit(log, label="click", ignore=IGNORE)
    other = quick(random_state=1).fit(log, label="click", ignore=IGNORE)
    np.testing.assert_array_equal(again.predict_proba(log), fitted.predict_proba(log))
    assert np.abs(other.predict_proba(log) - fitted.predict_proba(log)).max() > 1e-3


def test_fitting_leaves_the_callers_random_numbers_alone(log: pl.DataFrame) -> None:
    import torch

    before = torch.get_rng_state()
    quick(epochs=1).fit(log, label="click", ignore=IGNORE)
    assert torch.equal(torch.get_rng_state(), before)


def test_several_labels(log: pl.DataFrame) -> None:
    model = quick("mmoe", epochs=10, learning_rate=0.02).fit(log, label=["click", "like"])
    proba = model.predict_proba(log)
    assert proba.shape == (800, 2)
    assert roc_auc_score(log["like"], proba[:, 1]) > 0.65
    assert [list(pair) for pair in model.classes_] == [[0, 1], [0, 1]]
    assert model.predict(log).shape == (800, 2)
    assert {"auc", "click/auc", "like/auc"} <= set(model.evaluate(log))
    both = (model.predict(log) == log.select("click", "like").to_numpy()).all(1).mean()
    assert model.score(log) == pytest.approx(both)


def test_a_model_of_one_label_refuses_several(log: pl.DataFrame) -> None:
    from graphrec.registry import card, list_models

    single = [name for name in list_models(task="ctr") if not card(name).multi_label]
    for name in single:
        with pytest.raises(ConfigError, match=f"{name} takes one label, got click, like"):
            quick(name).fit(log, label=["click", "like"])


def test_evaluate_and_score_agree_with_scikit_learn(log: pl.DataFrame, fitted: CTRClassifier) -> None:
    proba = fitted.predict_proba(log)[:, 1]
    found = fitted.evaluate(log)
    assert found["auc"] == pytest.approx(roc_auc_score(log["click"], proba), abs=1e-9)
    assert found["logloss"] == pytest.approx(log_loss(log["click"], proba), abs=1e-6)
    accuracy = float((fitted.predict(log) == log["click"].to_numpy()).mean())
    assert fitted.score(log) == pytest.approx(accuracy)
    assert fitted.score(log, log["click"].to_numpy()) == pytest.approx(accuracy)


def test_weights_and_groups_reach_loss_and_metrics(log: pl.DataFrame) -> None:
    weighted = log.with_columns(w=pl.when(pl.col("click") == 1).then(20.0).otherwise(1.0))
    plain = quick().fit(weighted, label="click", ignore=(*IGNORE, "w"), group="user_id")
    heavy = quick().fit(weighted, label="click", ignore=IGNORE, weight="w", group="user_id")
    assert plain.predict_proba(log)[:, 1].mean() + 0.2 < heavy.predict_proba(weighted)[:, 1].mean()
    assert plain.metrics_["valid"]["gauc"] is not None
    assert "w" not in heavy.feature_names_in_


@pytest.mark.parametrize("values", [(1, 2), ("no", "yes"), (False, True), (-1.0, 1.0)])
def test_labels_of_any_two_values(log: pl.DataFrame, values: tuple[Any, Any]) -> None:
    renamed = log.with_columns(pl.col("click").replace_strict({0: values[0], 1: values[1]}))
    model = quick(epochs=1).fit(renamed, label="click", ignore=IGNORE)
    assert list(model.classes_) == list(values)
    assert set(model.predict(renamed)) <= set(values)
    assert model.score(renamed) == pytest.approx(
        (model.predict(renamed) == renamed["click"].to_numpy()).mean()
    )
    features, target = renamed.drop("click", "like", "item_history"), renamed["click"].to_numpy()
    by_arrays = quick(epochs=1).fit(features, target)
    assert by_arrays.classes_.tolist() == list(values)
    assert by_arrays.score(features, target) > 0.5


def test_schema_roles_and_options_reach_the_model(tmp_path: Path, log: pl.DataFrame) -> None:
    schema = TableSchema.infer(
        log, label="click", ignore=["like", "item_history"], roles={"hour": "categorical"}
    )
    schema.to_yaml(tmp_path / "schema.yaml")
    by_file = quick(schema=tmp_path / "schema.yaml").fit(log)
    by_roles = quick(roles={"hour": "categorical"}).fit(log, label="click", ignore=["like", "item_history"])
    np.testing.assert_array_equal(by_file.predict_proba(log), by_roles.predict_proba(log))
    assert by_file.module_.embedding_dim == 4
    with pytest.raises(ConfigError, match="label: like was asked for, but the schema's is click"):
        quick(schema=schema).fit(log, label="like")
    with pytest.raises(ConfigError, match="weight: 'price' is given beside a schema"):
        quick(schema=schema).fit(log, weight="price")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "fnc"}, "no 'fnc'; did you mean"),
        ({"model_options": {"layers": 3}}, "layers: fm has no such option"),
        ({"epochs": 0}, "epochs"),
        ({"precision": "16"}, "precision"),
        ({"random_state": -1}, "random_state=-1: must be a seed"),
        ({"random_state": "today"}, "random_state='today': must be a seed"),
        ({"train_options": {"bath": 3}}, "bath: unknown training option"),
        ({"train_options": {"epochs": 3}}, "epochs: is given twice"),
        ({"validation": 1.5}, "validation: 1.5 is not a fraction"),
        ({"model_options": {"embedding_dim": 8}}, "embedding_dim: is given twice"),
        ({"model": None}, "model: should be a name, got None"),
        ({"model_options": ["dropout"]}, "model_options=.*: must be a dict"),
        ({"train_options": ["epochs"]}, "train_options=.*: must be a dict"),
        ({"roles": "numeric"}, "roles=.*: must be a dict"),
        ({"schema": 3}, "schema: should be a TableSchema or the path of one, got 3"),
    ],
)
def test_wrong_arguments_are_named_before_any_data_is_read(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quick(**arguments).fit("/does/not/exist.parquet", label="click")


def test_wrong_uses_of_fit(log: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="which column is to be predicted"):
        quick().fit(log)
    with pytest.raises(ConfigError, match="sample_weight: goes with y"):
        quick().fit(log, label="click", sample_weight=np.ones(len(log)))
    with pytest.raises(ConfigError, match=r"split: 'tme' is not one of"):
        quick().fit(log, label="click", split="tme")
    with pytest.raises(ConfigError, match="leave no rows for training"):
        quick().fit(log, label="click", validation=0.5, test=0.5)
    with pytest.raises(DataError, match=r"Only binary classification is supported.*3 values"):
        quick().fit(np.zeros((6, 2)), [0, 1, 2, 0, 1, 2])
    with pytest.raises(SchemaError, match="clik"):
        quick().fit(log, label="clik")


def test_splits(tmp_path: Path, log: pl.DataFrame) -> None:
    timed = log.with_columns(ts=pl.Series(range(800)) * 3600)
    later = click_log(200, seed=5)
    later.write_parquet(tmp_path / "later.parquet")
    ignore = [*IGNORE, "ts"]
    for arguments, rows in [
        ({"validation": 0.25, "test": 0.25, "split": "order"}, (200, 200)),
        ({"validation": 0.25, "test": 0.1, "split": "time:ts"}, (200, 80)),
        ({"validation": Split.random(valid=0.5, test=0.0)}, (400, None)),
        ({"validation": later}, (200, None)),
        ({"test": tmp_path / "later.parquet"}, (80, 200)),
        ({"validation": 0}, (None, None)),
    ]:
        model = quick(epochs=1).fit(timed, label="click", ignore=ignore, **arguments)
        found = tuple(model.metrics_.get(part, {}).get("rows") for part in ("valid", "test"))
        assert found == rows, arguments
    grouped = quick(epochs=1).fit(log, label="click", ignore=IGNORE, split="group:user_id", validation=0.3)
    assert 0 < grouped.metrics_["valid"]["rows"] < 800


def test_leaking_columns_are_warned_about_by_name(log: pl.DataFrame) -> None:
    leaky = log.with_columns(copy=pl.col("click") * 10 + 3)
    with pytest.warns(UserWarning, match="copy"):
        model = quick(epochs=1).fit(leaky, label="click", ignore=IGNORE)
    assert len(model.leaks_) == 1


def test_arrays_frames_and_scikit_learns_tools(log: pl.DataFrame) -> None:
    frame = log.select("user_id", "item", "price").to_pandas()
    y = log["click"].to_numpy()
    model = quick()
    assert clone(model).get_params() == model.get_params()
    assert cross_val_score(model, frame, y, cv=2, scoring="roc_auc").mean() > 0.6
    search = GridSearchCV(quick(epochs=1), {"embedding_dim": [2, 4]}, scoring="neg_log_loss", cv=2).fit(
        frame, y
    )
    assert search.best_params_["embedding_dim"] in (2, 4)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    target = X[:, 0] + 0.2 * rng.normal(size=300) > 0
    chain = make_pipeline(StandardScaler(), quick("lr", learning_rate=0.1)).fit(X, target)
    assert chain.score(X, target) > 0.85


def test_sample_weights_of_arrays(log: pl.DataFrame) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 2)), rng.random(400) < 0.5
    model = quick("lr", validation=0).fit(X, y, sample_weight=np.where(y, 9.0, 1.0))
    assert model.predict_proba(X)[:, 1].mean() > 0.75
    kept = rng.random(400) < 0.5
    dropped = quick("lr").fit(X, y, sample_weight=kept.astype(float))
    alone = quick("lr").fit(X[kept], y[kept], sample_weight=np.ones(kept.sum()))
    np.testing.assert_allclose(dropped.predict_proba(X), alone.predict_proba(X), atol=1e-6)
    with pytest.raises(DataError, match="negative, NaN"):
        quick("lr").fit(X, y, sample_weight=np.full(400, -1.0))


def test_several_labels_as_an_array() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X[:, :2] + 0.2 * rng.normal(size=(300, 2)) > 0
    model = quick("shared_bottom").fit(X, y)
    assert model.predict(X).shape == (300, 2)
    assert model.predict_proba(X).shape == (300, 2)
    assert model.score(X, y) > 0.5


def test_one_row_and_a_batch_larger_than_the_data(fitted: CTRClassifier, log: pl.DataFrame) -> None:
    whole = fitted.predict_proba(log)
    np.testing.assert_allclose(fitted.predict_proba(log.head(1)), whole[:1], atol=1e-6)
    quick(batch_size=100_000, epochs=1).fit(log, label="click", ignore=IGNORE)


def test_a_measurement_keeps_no_features(
    fitted: CTRClassifier, log: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []

    def watched(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in TableEncoder.batches(fitted.encoder_, *args, **options):
            assert sum(features() is not None for features in made) <= 1, (
                "batches before the last one are kept"
            )
            made.append(weakref.ref(batch.features.categorical))
            yield batch
            del batch

    want = fitted.evaluate(log)
    monkeypatch.setattr("graphrec.estimators.scoring.BATCH", 100)
    monkeypatch.setattr(fitted.encoder_, "batches", watched)
    assert fitted.evaluate(log) == want
    assert len(made) == 8


def test_predicting_is_the_same_in_any_mode_of_the_module(fitted: CTRClassifier, log: pl.DataFrame) -> None:
    want = fitted.predict_proba(log)
    for mode in (True, False):
        fitted.module_.train(mode)
        assert np.array_equal(fitted.predict_proba(log), want)
        assert {p.device.type for p in fitted.module_.parameters()} == {"cpu"}


def test_batch_size_follows_the_number_of_rows() -> None:
    assert [pick_batch_size(n) for n in (1, 10_000, 100_000, 10_000_000)] == [64, 64, 512, 4096]


def test_y_of_a_measurement_is_held_to_the_fit(log: pl.DataFrame) -> None:
    X, y = log.drop("click"), log["click"].to_numpy()
    words = np.where(y == 1, "yes", "no")
    model = quick("lr").fit(X, words)
    with pytest.raises(DataError, match="fitted on, 'no' and 'yes'"):
        model.evaluate(X, y)
    with pytest.raises(DataError, match=f"has 10 rows .* X has {len(log)} rows"):
        model.evaluate(X, words[:10])
    on_table = quick("lr").fit(X.with_columns(click=pl.Series(words)), label="click")
    assert on_table.evaluate(X, words) == on_table.evaluate(X.with_columns(click=pl.Series(words)))


def test_weights_of_a_measurement_count(log: pl.DataFrame, fitted: CTRClassifier) -> None:
    X, y = log.drop("click"), log["click"].to_numpy()
    weights = np.where(np.arange(len(y)) < 500, 1.0, 0.0)
    weighted, head = fitted.evaluate(X, y, weights), fitted.evaluate(log.head(500))
    assert weighted["auc"] == pytest.approx(head["auc"], abs=1e-6)
    with pytest.raises(ConfigError, match="sample_weight: goes with y"):
        fitted.evaluate(log, sample_weight=weights)


def test_score_leaves_out_rows_without_a_label(log: pl.DataFrame, fitted: CTRClassifier) -> None:
    positive = fitted.predict(log) == 1
    unknown = log.with_columns(click=pl.when(pl.Series(positive)).then(None).otherwise("click"))
    assert fitted.score(unknown) == pytest.approx(fitted.score(log.filter(~pl.Series(positive))))


def test_y_beside_a_file_says_what_to_do(tmp_path: Path, log: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match="name the label column of a file"):
        quick("lr").fit(tmp_path / "log.parquet", log["click"])


def test_digits_of_object_arrays_stay_ids() -> None:
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    zips = np.array(["00501", "0501", "501", None, pd.NA])[rng.integers(0, 5, 300)]
    X = np.stack([zips, rng.normal(size=300).astype(object)], axis=1)
    model = quick("lr").fit(X, rng.random(300) < 0.5)
    assert [str(model.schema_[name].role) for name in ("x0", "x1")] == ["categorical", "numeric"]
    assert model.predict_proba(np.array([["new", 0.5]], dtype=object)).shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 2}, r"dnn: cannot be made with dropout=2.* \(dropout probability"),
        ({"hidden_units": [-3]}, r"dnn: cannot be made with hidden_units=\[-3\]"),
        ({"hidden_units": "64"}, "dnn: cannot be made with hidden_units='64'"),
        ({"embedding_dim": 2.5}, "embedding_dim: 2.5 is not a width"),
    ],
)
def test_values_that_no_model_can_have_are_named(
    log: pl.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        quick("dnn", model_options=options, embedding_dim=None).fit(log, label="click", ignore=["like"])


def test_labels_that_are_none_are_counted(log: pl.DataFrame) -> None:
    y = np.array([None, *["yes", "no"] * 10], dtype=object)
    with pytest.raises(DataError, match="y: is None in 1 of 21 rows"):
        quick().fit(np.zeros((21, 2)), y)


def test_a_fit_that_fails_leaves_no_old_weights_with_new_columns(log: pl.DataFrame) -> None:
    model = quick().fit(log, label="click", ignore=["like"])
    with pytest.raises(NonFiniteLossError):
        model.set_params(learning_rate=1e30).fit(log.head(200), label="like", ignore=["click"])
    with pytest.raises(NotFittedError):
        model.predict_proba(log)


def test_predictions_need_no_labels_nor_weights_whatever_these_hold(
    tmp_path: Path, log: pl.DataFrame
) -> None:
    rows = log.with_columns(w=pl.lit(2.0))
    model = quick("lr", epochs=1).fit(rows, label="click", weight="w", ignore=IGNORE)
    odd = rows.with_columns(click=pl.lit("unknown"), w=pl.lit(None, pl.Float64))
    np.testing.assert_array_equal(model.predict_proba(odd), model.predict_proba(rows))
    assert write_scores(model, odd, tmp_path / "scores.parquet", keep=["click"]) == len(rows)
    with pytest.raises(DataError, match="label column 'click' holds 'unknown'"):
        model.evaluate(odd)


def test_an_average_of_the_weights_is_kept_unless_refused(log: pl.DataFrame) -> None:
    found = []
    for options in (None, {"ema": 0.999}, {"ema": 0}, {"ema": None}):
        model = quick(train_options=options).fit(log, label="click", ignore=IGNORE)
        found.append(model.predict_proba(log.head(50)))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[2], found[3])
    assert not np.allclose(found[0], found[2])
