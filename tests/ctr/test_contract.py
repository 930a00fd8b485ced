"""What every registered model promises: a model is tested by being registered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ctr_tables import (
    CATEGORICAL,
    HISTORY,
    MIXED,
    NUMERIC,
    TAGS,
    dense,
    make_batch,
    make_features,
    make_spec,
)

from graphrec.ctr import CTRModel
from graphrec.pipelines.tables.features import Features, Field
from graphrec.registry import create_model, list_models, model_options

MODELS = list_models(task="ctr")
SMALL: dict[str, Any] = {
    "embedding_dim": 8,
    "embedding_std": 0.3,
    "hidden_units": (16, 8),
    "hidden_units1": (16, 8),
    "hidden_units2": (16, 8),
    "bottom_units": (16, 8),
    "expert_units": (16, 8),
    "tower_units": (8,),
    "block_units": (8, 6),
    "cin_units": (6, 4),
    "head_dim": 4,
}
"""Sizes for tests, as far as a model has them; embeddings start large enough that no gradient underflows."""


def build(name: str, *fields: Field, labels: int = 1, **options: Any) -> CTRModel:
    torch.manual_seed(0)
    known = model_options(name)
    sizes = {key: value for key, value in SMALL.items() if known.get(key)}
    return create_model(name, make_spec(*fields, labels=labels), **{**sizes, **options})


def test_the_promised_models_are_registered() -> None:
    promised = (
        "autoint autoint_plus bst dcnv2 deepfm din dnn ecn fcn finalmlp fm fwfm gdcn infnet lcn lr masknet "
        "mmoe ple shared_bottom xdeepfm"
    )
    assert set(promised.split()) <= set(MODELS)


@pytest.mark.parametrize("rows", [1, 7, 225])
@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_finiteness(name: str, rows: int) -> None:
    model = build(name, labels=2)
    batch = make_batch(model.spec, rows)
    logits = model(batch.features)  # in training mode
    assert logits.shape == (rows, 2)
    assert logits.isfinite().all()
    loss = model.training_loss(batch)
    assert loss.shape == ()
    assert loss.isfinite()
    assert model.eval().predict(batch).shape == (rows, 2)


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name: str, labels: int) -> None:
    model = build(name, labels=labels)
    model.training_loss(make_batch(model.spec, 64)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all() if not parameter.grad.is_sparse else True
        # attention over one task token is constant, so its queries and keys cannot learn
        if labels > 1 or name != "infnet":
            assert dense(parameter.grad).abs().sum() > 0, key


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(
    "fields",
    [(CATEGORICAL,), (NUMERIC,), (TAGS,), (HISTORY,), (CATEGORICAL, NUMERIC), (NUMERIC, TAGS, HISTORY)],
    ids=lambda fields: "-".join(f.name for f in fields),
)
@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("bst", "din")])
def test_any_mix_of_fields(name: str, fields: tuple[Field, ...], rows: int) -> None:
    model = build(name, *fields)
    batch = make_batch(model.spec, rows)
    model.training_loss(batch).backward()
    assert model(batch.features).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_evaluation_is_deterministic_and_by_row(name: str) -> None:
    model = build(name, labels=2)
    features = make_features(model.spec, 20)
    model(features)  # moves the running statistics off their start
    model.eval()
    with torch.no_grad():
        once, again = model(features), model(features)
        rows = [model(row_of(features, i)) for i in range(20)]
    assert torch.equal(once, again)
    torch.testing.assert_close(torch.cat(rows), once, atol=1e-5, rtol=1e-5)


def row_of(features: Features, i: int) -> Features:
    row = slice(i, i + 1)
    return Features(features.categorical[row], features.numeric[row], tuple(x[row] for x in features.lists))


@pytest.mark.parametrize("name", MODELS)
def test_dropout_is_on_in_training_only(name: str) -> None:
    rates = {key: 0.5 for key in model_options(name) if "dropout" in key}
    if not rates:
        pytest.skip("the model has no dropout")
    model = build(name, **rates)
    features = make_features(model.spec, 16)
    assert not torch.equal(model(features), model(features))
    model.eval()
    assert torch.equal(model(features), model(features))


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_weights(name: str) -> None:
    first, second = build(name).state_dict(), build(name).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_state_round_trip(name: str) -> None:
    model, features = build(name, labels=2), make_features(make_spec(labels=2), 9)
    model(features)
    other = build(name, labels=2)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(features), other.eval()(features))


@pytest.mark.parametrize("name", MODELS)
def test_weights_need_no_pickle(name: str) -> None:
    from safetensors.torch import load, save

    state = build(name).state_dict()
    assert load(save(state)).keys() == state.keys()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", MODELS)
def test_export(name: str, dynamic: bool) -> None:
    model = build(name, labels=2).eval()
    features = make_features(model.spec, 5)
    shapes: Any = None
    if dynamic:
        rows = {0: torch.export.Dim("rows")}
        shapes = (Features(rows, rows, tuple(rows for _ in features.lists)),)
    with torch.no_grad():
        program = torch.export.export(model, (features,), dynamic_shapes=shapes)
        again = program.module()
        other = make_features(model.spec, 11 if dynamic else 5, seed=3)
        torch.testing.assert_close(again(other), model(other), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_bf16_autocast(name: str) -> None:
    model = build(name, labels=2)
    batch = make_batch(model.spec, 32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.training_loss(batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad is not None and dense(p.grad).isfinite().all() for p in model.parameters())
    model.zero_grad()
    with torch.no_grad():
        torch.manual_seed(0)
        exact = model.eval().training_loss(batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.training_loss(batch)
    assert rough.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_field_interactions(name: str) -> None:
    model = build(name, labels=2)
    pairs = model.field_interactions(make_features(model.spec, 12))
    if pairs is None:
        assert name in {"bst", "lr", "dnn", "din", "finalmlp", "infnet", "mmoe", "ple", "shared_bottom"}
        return
    assert pairs.shape == (len(MIXED), len(MIXED))
    assert not pairs.requires_grad
    assert pairs.isfinite().all()
    assert (pairs >= 0).all()
    assert pairs.std() > 0


@pytest.mark.parametrize("name", MODELS)
def test_options_are_plain(name: str) -> None:
    assert all(
        value is None or isinstance(value, int | float | str | tuple)
        for value in model_options(name).values()
    )
