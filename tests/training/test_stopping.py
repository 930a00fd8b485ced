import math

import pytest

from graphrec.errors import ConfigError
from graphrec.training import TrainConfig
from graphrec.training.stopping import Stopper, higher_is_better


@pytest.mark.parametrize(
    "name", ["auc", "gauc", "pr_auc", "click/auc", "gauc_weighted", "accuracy", "ndcg_10", "psnr"]
)
def test_higher(name):
    assert higher_is_better(name)


@pytest.mark.parametrize(
    "name", ["logloss", "click/logloss", "loss", "val_loss", "ne", "ece", "rmse", "brier"]
)
def test_lower(name):
    assert not higher_is_better(name)


def test_unknown_metrics_need_a_mode():
    with pytest.raises(ConfigError, match="mode"):
        higher_is_better("quality")
    assert higher_is_better("quality", "max")
    assert not higher_is_better("quality", "min")


def follow(stopper, values):
    return [stopper.update({stopper.monitor: v}) for v in values]


def test_stops_after_patience_evaluations_without_a_best():
    stopper = Stopper(TrainConfig(patience=2), "valid_auc")
    assert follow(stopper, [0.6, 0.7, 0.7, 0.65]) == [True, True, False, False]
    assert stopper.stop
    assert stopper.best == 0.7


def test_a_new_best_starts_the_count_again():
    stopper = Stopper(TrainConfig(patience=2, monitor="logloss"), "valid_logloss")
    assert follow(stopper, [0.6, 0.7, 0.5, 0.6]) == [True, False, True, False]
    assert not stopper.stop


def test_min_delta():
    stopper = Stopper(TrainConfig(min_delta=0.01), "valid_auc")
    assert follow(stopper, [0.6, 0.605, 0.615]) == [True, False, True]


def test_never_stops_without_patience_or_validation():
    for patience, monitor in ((None, "valid_auc"), (1, "train_loss")):
        stopper = Stopper(TrainConfig(patience=patience), monitor)
        follow(stopper, [0.5, 0.5, 0.5, 0.5])
        assert not stopper.stop


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_an_undefined_metric_warns_and_keeps_the_newest(nothing):
    stopper = Stopper(TrainConfig(patience=1), "valid_auc")
    with pytest.warns(UserWarning, match="do not define auc"):
        assert follow(stopper, [nothing, nothing]) == [True, True]
    assert follow(stopper, [0.6]) == [True]
    with pytest.warns(UserWarning, match="do not define auc"):
        assert follow(stopper, [nothing]) == [False]


def test_a_missing_metric_lists_the_others():
    stopper = Stopper(TrainConfig(monitor="auk", mode="max"), "valid_auk")
    with pytest.raises(
        ConfigError, match="monitor: no metric 'auk' among the validation metrics auc, logloss"
    ):
        stopper.update({"train_loss": 1.0, "valid_auc": 0.5, "valid_logloss": 0.7})


def test_state_round_trip():
    first, second = (Stopper(TrainConfig(patience=2), "valid_auc") for _ in range(2))
    follow(first, [0.6, 0.5])
    second.load_state_dict(first.state_dict())
    follow(second, [0.5])
    assert second.stop
    assert second.best == 0.6
