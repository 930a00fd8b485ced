import weakref

import numpy as np
import pytest
import torch
from training_tiny import Rows, Scores, Tiny, make_model, quick_config

from graphrec.errors import ConfigError, DataError, RunError
from graphrec.metrics import BinaryMetrics
from graphrec.module_estimator import ClassMetrics
from graphrec.training import BatchSource, Trainer


def fit(run_dir=None, *, rows=600, model=None, valid=True, **config):
    model = model or make_model()
    trainer = Trainer(quick_config(**config))
    validation = Rows(333, 100, seed=1) if valid else None
    metrics = Scores() if valid else None
    history = trainer.fit(model, Rows(rows, 64, shuffle=True), validation, metrics=metrics, run_dir=run_dir)
    return model, history, trainer


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_tells():
    _, history, _ = fit(epochs=6, rows=3000)
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in history.rows] == [47 * k for k in range(1, 7)]
    assert history.rows[-1]["train_loss"] < 0.6 < history.rows[0]["train_loss"]
    assert history.best["valid_accuracy"] > 0.7
    assert all(row["seconds"] > 0 and row["rows_per_s"] > 0 and row["lr"] > 0 for row in history.rows)
    assert history.stopped == "epochs"


def test_train_loss_is_the_mean_over_rows():
    model = make_model(dropout=0.0, norm=False)
    with torch.no_grad():
        expected = float(model.training_loss(next(Rows(150, 150).epoch(0))))
    history = Trainer(quick_config(epochs=1, learning_rate=1e-12, embedding_lr=1e-12)).fit(
        model, Rows(150, 64)
    )
    assert history.rows[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_weights_and_other_seed_others():
    first, _, _ = fit(seed=1)
    second, _, _ = fit(seed=1)
    third, _, _ = fit(seed=2)
    assert equal(weights(first), weights(second))
    assert not equal(weights(first), weights(third))


def test_weights_are_constrained_after_every_step():
    model = make_model()
    name, weight = next((n, w) for n, w in model.named_parameters() if w.dim() == 2)
    seen = []

    def constrain():
        with torch.no_grad():
            weight.clamp_(-0.01, 0.01)
        seen.append(1)

    model.constrain = constrain
    fit(model=model, epochs=2, valid=False)
    assert len(seen) == 2 * 10
    assert dict(model.named_parameters())[name].abs().max() <= 0.01


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_it_stops_early_and_restores_the_best():
    """A rate at which a later epoch is worse than the first."""
    model, history, trainer = fit(epochs=30, learning_rate=0.3, patience=2, scheduler="none")
    assert history.stopped == "patience"
    assert len(history) < 30
    assert [row["best"] for row in history.rows[-2:]] == [False, False]
    scores = trainer.evaluate(model, Rows(333, 100, seed=1), Scores())
    assert scores["logloss"] == history.best["valid_logloss"] == min(r["valid_logloss"] for r in history.rows)
    assert scores["logloss"] < history.rows[-1]["valid_logloss"]


def test_without_validation_the_last_weights_stay():
    _, history, _ = fit(valid=False, epochs=2)
    assert [key for key in history.rows[0] if key.startswith("valid")] == []
    assert len(history) == 2


def test_evaluation_does_not_change_training():
    with_it, history, _ = fit(patience=None, scheduler="none", evaluations_per_epoch=4)
    without, _, _ = fit(valid=False, scheduler="none")
    assert history.rows[-1]["best"]  # or the weights would be those of another evaluation
    assert equal(weights(with_it), weights(without))


def test_only_a_gain_above_min_delta_replaces_the_best():
    kept, _, _ = fit(patience=None, scheduler="none", min_delta=10)
    first, _, _ = fit(epochs=1, valid=False, scheduler="none")
    assert equal(weights(kept), weights(first))


def test_several_evaluations_per_epoch():
    _, history, _ = fit(epochs=2, evaluations_per_epoch=3, patience=None)
    assert [row["step"] for row in history.rows] == [4, 7, 10, 14, 17, 20]
    assert [row["epoch"] for row in history.rows] == [0.4, 0.7, 1, 1.4, 1.7, 2]


def test_early_stop_inside_an_epoch():
    _, history, _ = fit(epochs=2, evaluations_per_epoch=5, patience=2, min_delta=10)
    assert [row["step"] for row in history.rows] == [2, 4, 6]


def test_plateau_lowers_the_rate():
    _, history, _ = fit(epochs=4, patience=None, min_delta=10, plateau_factor=0.5)
    assert [row["lr"] for row in history.rows] == pytest.approx([0.01, 0.01, 0.005, 0.0025])


def test_predictions_keep_the_order_and_leave_the_mode():
    model, _, trainer = fit(epochs=1)
    model.train()
    source = Rows(333, 100, seed=1)
    predicted = trainer.predict(model, source)
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = model.predict(next(Rows(333, 333, seed=1).epoch(0))).numpy()
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)


def test_no_batch_of_predictions_outlives_the_next():
    """Small tensors kept between large temporaries leave holes in the heap, which grows with the rows."""
    made: list[weakref.ref] = []
    alive = []

    class Watched(Tiny):
        def predict(self, batch):
            found = super().predict(batch)
            alive.append(sum(one() is not None for one in made))
            made.append(weakref.ref(found))
            return found

    model, trainer, source = Watched(), Trainer(quick_config()), Rows(1000, 50, seed=1)
    trainer.predict(model, source)
    trainer.evaluate(model, source, BinaryMetrics())
    trainer.evaluate(model, source, ClassMetrics(lambda labels, scores: {"rows": len(labels)}))
    assert len(alive) == 60
    assert max(alive) <= 1, alive


def test_clipping_limits_the_step():
    free = make_model(dropout=0.0, norm=False)
    held = make_model(dropout=0.0, norm=False)
    start = weights(free)
    options = {
        "epochs": 1,
        "rows": 64,
        "optimizer": "sgd",
        "embedding_optimizer": "adagrad",
        "learning_rate": 0.1,
    }
    fit(model=free, clip_norm=None, valid=False, **options)
    fit(model=held, clip_norm=1e-3, valid=False, **options)
    dense = [name for name in start if name.startswith("net")]
    steps = ({n: weights(model)[n] - start[n] for n in dense} for model in (free, held))
    moved = [torch.stack([change.norm() for change in step.values()]).norm() for step in steps]
    assert moved[0] > 10 * moved[1] > 0
    assert moved[1] <= 1.001e-4


def test_bf16_is_close_to_fp32_and_keeps_weights_in_fp32():
    full, reference, _ = fit(rows=2000, model=make_model(dropout=0.0))
    half, history, _ = fit(rows=2000, model=make_model(dropout=0.0), precision="bf16-mixed")
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert not equal(weights(full), weights(half))
    assert history.best["valid_logloss"] == pytest.approx(reference.best["valid_logloss"], abs=0.01)


def test_bf16_warns_on_a_cpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.warns(UserWarning, match="no bfloat16 instructions"):
        fit(epochs=1, precision="bf16-mixed")


def test_a_source_that_ends_early_is_an_error():
    class Short(Rows):
        def epoch(self, epoch, start_step=0):
            yield next(super().epoch(epoch, start_step))

    with pytest.raises(DataError, match="promised 10 batches and ended after 1 in epoch 1"):
        Trainer(quick_config()).fit(make_model(), Short(600, 64))


def test_an_empty_source_is_an_error():
    trainer = Trainer(quick_config())
    with pytest.raises(DataError, match="the training part has no rows"):
        trainer.fit(make_model(), Rows(0, 64))
    with pytest.raises(DataError, match="the validation part has no rows"):
        trainer.fit(make_model(), Rows(64, 64), Rows(0, 64), metrics=Scores())


def test_a_source_for_other_processes_is_an_error():
    with pytest.raises(RunError, match="train source was made for 2 processes and 1 are running"):
        Trainer(quick_config()).fit(make_model(), Rows(600, 64, rank=1, world=2))


def test_validation_needs_metrics():
    with pytest.raises(ConfigError, match="metrics"):
        Trainer(quick_config()).fit(make_model(), Rows(600, 64), Rows(100, 64))


class Untouched(Tiny):
    def training_loss(self, batch):
        raise AssertionError("trained")


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("quality", "monitor: is more or less of 'quality' better"),
        ("auc", "monitor: no metric 'auc' among the validation metrics logloss, accuracy, rows"),
    ],
)
def test_a_wrong_monitor_is_found_before_training(monitor, message):
    with pytest.raises(ConfigError, match=message):
        fit(model=Untouched(), monitor=monitor)


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="accelerator='tpu'"):
        Trainer(quick_config(accelerator="tpu")).fit(make_model(), Rows(600, 64))


def test_the_validation_part_may_be_one_row():
    model = make_model()
    history = Trainer(quick_config()).fit(model, Rows(600, 64), Rows(1, 64), metrics=Scores())
    assert history.rows[0]["valid_rows"] == 1


def test_a_last_batch_of_one_row_passes_batch_norm():
    model = make_model()
    fit(model=model, rows=129, epochs=1)
    assert int(model.net[1].num_batches_tracked) == 2
    assert all(bool(torch.isfinite(t).all()) for t in model.state_dict().values())
    fit(model=make_model(), rows=1, epochs=1)


def test_row_source_follows_the_protocol():
    assert isinstance(Rows(10, 5), BatchSource)


def test_frozen_parameters_stay():
    model = make_model()
    model.net[0].weight.requires_grad_(False)
    model.embedding.weight.requires_grad_(False)
    before = weights(model)
    fit(model=model, epochs=1)
    after = weights(model)
    assert torch.equal(before["net.0.weight"], after["net.0.weight"])
    assert torch.equal(before["embedding.weight"], after["embedding.weight"])
    assert not torch.equal(before["net.0.bias"], after["net.0.bias"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_close_to_cpu():
    here, reference, _ = fit(model=make_model(dropout=0.0, norm=False))
    there, history, _ = fit(model=make_model(dropout=0.0, norm=False), accelerator="cuda")
    assert next(there.parameters()).is_cuda
    assert history.best["valid_logloss"] == pytest.approx(reference.best["valid_logloss"], abs=1e-3)
    for name, tensor in weights(here).items():
        torch.testing.assert_close(weights(there)[name].cpu(), tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_compiled_training_is_close_to_eager():
    plain, reference, _ = fit(rows=2000, model=make_model(dropout=0.0, norm=False))
    fast, history, _ = fit(rows=2000, model=make_model(dropout=0.0, norm=False), compile=True)
    assert history.best["valid_logloss"] == pytest.approx(reference.best["valid_logloss"], abs=1e-3)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(fast)[name], tensor, rtol=0.02, atol=0.02)


def test_a_failing_compiler_is_an_error(monkeypatch):
    def broken(function, **_):
        def call(batch):
            raise torch._dynamo.exc.Unsupported("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        ConfigError, match=r"compile: it fails on this model \(no C\+\+ compiler.*set compile to false"
    ):
        fit(compile=True)


def test_compiled_functions_are_for_whole_batches(monkeypatch):
    seen = []

    def fake(function, **_):
        def call(batch):
            seen.append(len(batch.labels))
            return function(batch)

        return call

    monkeypatch.setattr(torch, "compile", fake)
    fast, _, _ = fit(compile=True, epochs=2)
    plain, _, _ = fit(epochs=2)
    assert set(seen) == {64, 100}  # not 24 and 33, the last batches
    assert equal(weights(fast), weights(plain))
