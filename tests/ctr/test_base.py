"""The loss and the probabilities that all models share."""

from __future__ import annotations

import pytest
import torch
from ctr_tables import CATEGORICAL, make_batch, make_spec
from sklearn.metrics import log_loss

from graphrec.ctr import DNN, LR, MMoE
from graphrec.ctr.base import label_losses
from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import FeatureSpec


def test_loss_is_the_log_loss_of_scikit_learn() -> None:
    batch = make_batch(make_spec(), 50)
    logits = torch.randn(50, 1)
    weights = torch.rand(50)
    expected = log_loss(batch.labels[:, 0], torch.sigmoid(logits[:, 0]), sample_weight=weights)
    assert label_losses(logits, batch._replace(weights=weights)).item() == pytest.approx(expected, abs=1e-6)


def test_missing_labels_do_not_count() -> None:
    batch = make_batch(make_spec(labels=2), 6)
    labels = batch.labels.clone()
    labels[2:, 1] = torch.nan
    logits = torch.randn(6, 2, requires_grad=True)
    losses = label_losses(logits, batch._replace(labels=labels))
    first = label_losses(logits[:2], batch._replace(labels=labels[:2]))
    assert losses[1].item() == pytest.approx(first[1].item())
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad[2:, 1].eq(0).all()
    assert logits.grad[:, 0].ne(0).all()


@pytest.mark.parametrize("hidden", ["labels", "weights"])
def test_nothing_to_learn_from_is_zero_loss(hidden: str) -> None:
    batch = make_batch(make_spec(), 4)
    nothing = {"labels": batch.labels * torch.nan, "weights": torch.zeros(4)}[hidden]
    logits = torch.randn(4, 1, requires_grad=True)
    loss = label_losses(logits, batch._replace(**{hidden: nothing})).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.eq(0).all()


def test_a_row_of_weight_zero_changes_nothing() -> None:
    batch = make_batch(make_spec(), 5)
    logits = torch.randn(5, 1)
    weights = torch.tensor([1.0, 1, 1, 1, 0])
    with_row = label_losses(logits, batch._replace(weights=weights))
    without = label_losses(logits[:4], batch._replace(labels=batch.labels[:4]))
    torch.testing.assert_close(with_row, without)


def test_label_weights_average_the_losses() -> None:
    spec = make_spec(labels=2)
    batch = make_batch(spec, 8)
    torch.manual_seed(0)
    model = MMoE(spec, label_weights=(3.0, 1.0))
    losses = label_losses(model(batch.features), batch)
    expected = 0.75 * losses[0] + 0.25 * losses[1]
    torch.testing.assert_close(model.training_loss(batch), expected)


def test_predict_gives_float32_probabilities() -> None:
    spec = make_spec(labels=2)
    model = DNN(spec).bfloat16()
    batch = make_batch(spec, 5)
    found = model.predict(
        batch._replace(features=batch.features._replace(numeric=batch.features.numeric.bfloat16()))
    )
    assert found.dtype == torch.float32
    assert found.shape == (5, 2)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LR(FeatureSpec(())), "no feature column"),
        (lambda: LR(FeatureSpec((CATEGORICAL,), ())), "no label"),
        (lambda: DNN(make_spec(), embedding_dim=0), "embedding_dim: 0"),
        (lambda: MMoE(make_spec(labels=2), label_weights=(1.0,)), "1 weights for 2 labels"),
        (lambda: MMoE(make_spec(labels=2), label_weights=(0.0, 0.0)), "must not be negative"),
    ],
)
def test_mistakes_are_named(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]
