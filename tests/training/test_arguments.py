"""Arguments that all estimators share: what is refused, by name, before any data are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphrec import CTRClassifier
from graphrec.errors import ConfigError
from graphrec.estimators.settings import split_settings, train_config
from graphrec.graph import GraphClassifier, NodeClassifier
from graphrec.graph.eeg import EEGClassifier
from graphrec.graph.hypergraph import HypergraphClassifier
from graphrec.graph.relations import RelationExtractor
from graphrec.training.arguments import check_training
from graphrec.vision import ImageClassifier

ESTIMATORS: list[Any] = [
    GraphClassifier,
    NodeClassifier,
    EEGClassifier,
    RelationExtractor,
    HypergraphClassifier,
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": "8"}, "batch_size='8': must be a whole number from 1 up"),
    ({"batch_size": None}, "batch_size=None: must be a whole number"),
    ({"epochs": 0}, "epochs=0: must be a whole number"),
    ({"epochs": True}, "epochs=True: must be a whole number"),
    ({"epochs": 2.5}, "epochs=2.5: must be a whole number"),
    ({"patience": "3"}, "patience='3': must be a whole number"),
    ({"patience": -1}, "patience=-1: must be a whole number from 0 up"),
    ({"patience": False}, "patience=False: must be a whole number from 0 up"),
    ({"learning_rate": "0.1"}, "learning_rate='0.1': must be a finite number above 0"),
    ({"learning_rate": 0}, "learning_rate=0: must be a finite number above 0"),
    ({"learning_rate": float("nan")}, "learning_rate=nan: must be a finite number above 0"),
    ({"weight_decay": -0.1}, "weight_decay=-0.1: must be a finite number from 0"),
    ({"weight_decay": float("inf")}, "weight_decay=inf: must be a finite number from 0"),
    ({"validation": 1.0}, "validation=1.0: must be a finite number from 0 and below 1"),
    (
        {"train_options": [("clip_norm", 1)]},
        "train_options=.*: must be a dict of settings by name, found list",
    ),
    ({"model_options": "deep"}, "model_options='deep': must be a dict of settings by name, found str"),
    ({"train_options": {"epochs": 3}}, "train_options: epochs is an argument of its own; give epochs="),
]


CASES = [
    pytest.param(kind, change, said, id=f"{kind.__name__} {said[:25]}")
    for kind in ESTIMATORS
    for change, said in WRONG
    if set(change) <= set(kind().get_params(deep=False))
]


@pytest.mark.parametrize(("kind", "change", "said"), CASES)
def test_every_estimator_names_what_is_wrong(kind: Any, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        kind(**change).fit(None)


def test_numbers_of_numpy_are_numbers() -> None:
    check_training(
        {
            "epochs": np.int64(3),
            "batch_size": np.int32(2),
            "patience": None,
            "learning_rate": np.float32(0.1),
            "weight_decay": 0,
            "validation": 0,
            "train_options": {"clip_norm": 1.0},
        }
    )


@pytest.mark.parametrize("patience", [0, None])
def test_a_patience_of_zero_is_never_for_every_estimator(patience: int | None) -> None:
    check_training({"patience": patience})
    assert NodeClassifier(patience=patience)._config(0).patience is None
    assert ImageClassifier(patience=patience)._config(0).patience is None
    said = split_settings(CTRClassifier(), {"patience": patience})
    assert train_config(CTRClassifier(**said), 0).patience is None


def test_a_network_on_a_whole_graph_has_no_batches() -> None:
    with pytest.raises(ConfigError, match="batch_size: every step takes the whole graph; leave it out"):
        NodeClassifier(train_options={"batch_size": 8})._config(0)
