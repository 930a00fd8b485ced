"""`BinaryMetrics`: batches, merging, labels, missing values, what it refuses."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from graphrec.errors import ConfigError, DataError
from graphrec.metrics import METRICS, BinaryMetrics, higher_is_better


def rows(n=500, labels=2, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random((n, labels), np.float32)
    y = (rng.random((n, labels)) < p).astype(np.float32)
    return y, p, rng.uniform(0.5, 2, n).astype(np.float32), rng.integers(0, 30, n)


def test_batches_give_what_the_whole_gives():
    y, p, w, g = rows()
    whole, streamed = BinaryMetrics(["a", "b"]), BinaryMetrics(["a", "b"])
    whole.update(y, p, w, g)
    for start in range(0, len(y), 77):
        part = slice(start, start + 77)
        streamed.update(y[part], p[part], w[part], g[part])
    assert streamed.compute() == whole.compute()
    assert len(streamed) == len(y)


def test_processes_merged_in_any_order_give_the_same():
    y, p, w, g = rows()
    parts = [BinaryMetrics(["a", "b"]) for _ in range(3)]
    for rank, part in enumerate(parts):
        part.update(y[rank::3], p[rank::3], w[rank::3], g[rank::3])
    forward, backward, whole = (BinaryMetrics(["a", "b"]) for _ in range(3))
    whole.update(y, p, w, g)
    for part in parts:
        forward.merge(part.state())
    for part in reversed(parts):
        backward.merge({k: torch.from_numpy(v) for k, v in part.state().items()})
    for merged in (forward, backward):
        for name, value in whole.compute().items():
            assert merged.compute()[name] == pytest.approx(value, rel=1e-12), name


def test_an_empty_process_can_be_merged():
    metrics = BinaryMetrics()
    metrics.merge(BinaryMetrics().state())
    metrics.update([0, 1], [0.1, 0.9], groups=[1, 1])
    metrics.merge(BinaryMetrics().state())
    assert metrics.compute()["gauc"] == 1.0


def test_several_labels_are_named_and_averaged():
    y, p, _, _ = rows()
    metrics = BinaryMetrics(["click", "like"])
    metrics.update(y, p)
    values = metrics.compute()
    assert values["click/auc"] == pytest.approx(roc_auc_score(y[:, 0], p[:, 0]))
    assert values["like/logloss"] == pytest.approx(log_loss(y[:, 1], p[:, 1].astype(np.float64)))
    assert values["auc"] == pytest.approx((values["click/auc"] + values["like/auc"]) / 2)
    assert "base_rate" not in values
    assert "calibration" not in values
    assert values["click/rows"] == 500


def test_missing_labels_leave_only_their_label_out():
    y, p, _, _ = rows()
    y[::3, 1] = np.nan
    metrics = BinaryMetrics(["a", "b"])
    metrics.update(y, p)
    known, values = ~np.isnan(y[:, 1]), metrics.compute()
    assert values["b/auc"] == pytest.approx(roc_auc_score(y[known, 1], p[known, 1]))
    assert (values["a/rows"], values["b/rows"]) == (500, known.sum())
    back, _, _ = metrics.arrays("b")
    np.testing.assert_array_equal(back, y[:, 1])


def test_one_class_is_none_and_not_a_number():
    metrics = BinaryMetrics()
    metrics.update([0, 0, 0], [0.1, 0.2, 0.3], groups=[1, 1, 2])
    values = metrics.compute()
    undefined = {k for k, v in values.items() if v is None}
    assert undefined == {"auc", "ne", "pr_auc", "gauc", "gauc_weighted", "calibration"}
    assert values["logloss"] == pytest.approx(-np.log([0.9, 0.8, 0.7]).mean(), rel=1e-6)
    assert json.loads(json.dumps(values, allow_nan=False))["auc"] is None


def test_the_mean_takes_the_labels_for_which_it_is_defined():
    metrics = BinaryMetrics(["a", "b"])
    metrics.update([[0, 0], [1, 0]], [[0.1, 0.2], [0.9, 0.2]])
    assert (metrics.compute()["auc"], metrics.compute()["b/auc"]) == (1.0, None)


def test_no_rows_are_none():
    values = BinaryMetrics().compute()
    assert values.pop("rows") == 0
    assert set(values.values()) == {None}
    both_missing = BinaryMetrics()
    both_missing.update([np.nan, np.nan], [0.1, 0.2])
    assert both_missing.compute()["logloss"] is None


def test_tensors_of_every_dtype_are_read():
    y, p = torch.tensor([0, 1, 1, 0]), torch.tensor([0.25, 0.75, 0.5, 0.5], requires_grad=True)
    expected = BinaryMetrics()
    expected.update(y.numpy(), p.detach().numpy())
    for labels in (y, y.bool(), y.float(), y.bfloat16()):
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            metrics = BinaryMetrics()
            metrics.update(labels, p.to(dtype))
            assert metrics.compute() == expected.compute()


def test_five_bytes_per_row_and_label():
    metrics = BinaryMetrics()
    metrics.update(np.zeros(1000), np.zeros(1000), None, None)
    assert sum(v.nbytes for v in metrics.state().values()) == 5000


def test_certain_and_wrong_is_finite():
    metrics = BinaryMetrics()
    metrics.update([0, 1], [1.0, 0.0])
    assert metrics.compute()["logloss"] == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-6)


def test_reset_forgets():
    metrics = BinaryMetrics()
    metrics.update([0, 1], [0.1, 0.9], weights=[1, 2])
    metrics.reset()
    metrics.update([0, 1], [0.9, 0.1])
    assert metrics.compute()["auc"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0.1, np.nan]), "predictions: 1 of 2 are not probabilities"),
        (([0, 1], [0.1, 1.5]), r"the first is 1\.5"),
        (([0, 2], [0.1, 0.5]), "labels: 1 of 2 are neither 0 nor 1"),
        (([0.5, 1.0], [0.1, 0.5]), "neither 0 nor 1"),
        (([0, 1], [0.1]), "labels and predictions: shapes"),
        (([[0, 1]], [[0.1, 0.2]]), r"labels: shape \(1, 2\), expected \(rows, 1\)"),
        (([0, 1], [0.1, 0.2], [1.0]), "weights: shape"),
        (([0, 1], [0.1, 0.2], [1.0, -1.0]), "weights: all must be finite"),
        (([0, 1], [0.1, 0.2], None, [1.5, 2.5]), "whole numbers"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    metrics = BinaryMetrics()
    with pytest.raises(DataError, match=message):
        metrics.update(*arguments)
    assert len(metrics) == 0


def test_weights_in_some_batches_only_are_refused():
    metrics = BinaryMetrics()
    metrics.update([0], [0.1])
    with pytest.raises(DataError, match="weights: given for some batches"):
        metrics.update([0], [0.1], [1.0])


def test_direction_of_each_metric():
    assert higher_is_better("auc")
    assert higher_is_better("click/gauc")
    assert not higher_is_better("logloss")
    for name in ("calibration", "speed"):
        with pytest.raises(ConfigError, match="choose one of auc, logloss"):
            higher_is_better(name)
    assert set(METRICS) >= {k for k in BinaryMetrics().compute() if k not in ("rows", "base_rate")}


def test_missing_labels_are_left_out_of_weighted_metrics_too():
    y, p, w, g = rows(labels=1)
    y[::3] = np.nan
    known = ~np.isnan(y[:, 0])
    some, kept = BinaryMetrics(), BinaryMetrics()
    some.update(y, p, w, g)
    kept.update(y[known], p[known], w[known], g[known])
    assert some.compute() == kept.compute()
    assert some.compute()["auc"] == pytest.approx(roc_auc_score(y[known], p[known], sample_weight=w[known]))
