"""scikit-learn's own checks of an estimator."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from graphrec import CTRClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.*predicts the label almost perfectly")
"""Iris, which some checks use, has columns that do."""

CANNOT_APPLY = {
    "check_sample_weight_equivalence_on_dense_data": (
        "A weight of 2 is not the same as the row twice: a step takes a fixed number of rows in a random "
        "order, and categories and means are counted by rows. Rows of weight 0 are the same as rows that are "
        "not there, which test_estimators.py::test_sample_weights_of_arrays checks."
    ),
}
"""Every check that is not met, with the reason."""


def _fast(model: str) -> CTRClassifier:
    return CTRClassifier(
        model, epochs=8, batch_size=32, learning_rate=0.05, validation=0, accelerator="cpu", random_state=0
    )


@parametrize_with_checks([_fast("lr"), _fast("fcn")], expected_failed_checks=lambda estimator: CANNOT_APPLY)
def test_scikit_learns_contract(estimator: CTRClassifier, check: Callable[[CTRClassifier], None]) -> None:
    check(estimator)


def test_a_fitted_estimator_pickles_and_clones_unfitted() -> None:
    X = np.random.default_rng(0).normal(size=(80, 2))
    model = _fast("lr").fit(X, X[:, 0] + X[:, 1] > 0.1)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(model), "module_")


def test_a_search_sets_single_options_of_model_and_training() -> None:
    given = {"embedding_std": 1e-4}
    model = CTRClassifier("lr", model_options=given).set_params(
        model_options__embedding_std=1e-3, train_options__clip_norm=1.0, epochs=2
    )
    assert model.get_params()["model_options"] == {"embedding_std": 1e-3}
    assert model.get_params()["train_options"] == {"clip_norm": 1.0}
    assert (model.epochs, given) == (2, {"embedding_std": 1e-4})
    X = np.random.default_rng(0).normal(size=(80, 2))
    grid = {"classifier__model_options__embedding_std": [1e-4, 1e-3]}
    search = GridSearchCV(Pipeline([("classifier", _fast("lr"))]), grid, cv=2, scoring="roc_auc")
    search.fit(X, X[:, 0] + X[:, 1] > 0.1)
    assert set(search.best_params_) == set(grid)
    with pytest.raises(ValueError, match="Invalid parameter 'modle'"):
        model.set_params(modle="fcn")


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_few_rows(rows: int) -> None:
    X, y = np.arange(2.0 * rows).reshape(rows, 2), np.arange(rows) % 2
    if rows == 1:
        with pytest.raises(ValueError, match="one class only"):
            CTRClassifier(accelerator="cpu").fit(X, y)
    else:
        model = CTRClassifier(epochs=1, accelerator="cpu", random_state=0).fit(X, y)
        assert model.predict_proba(X).shape == (rows, 2)
