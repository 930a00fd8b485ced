"""Models learn an interaction that has no main effects, and only by the part that makes interactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ctr_tables import CATEGORICAL, HISTORY, ITEM, dense, make_features, make_spec
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from graphrec.ctr import CTRModel
from graphrec.ctr.autoint import InteractingLayer
from graphrec.ctr.fcn import CrossNetwork
from graphrec.ctr.field_pairs import FieldPairs
from graphrec.ctr.layers import CrossNetV2, FactorPairs
from graphrec.ctr.xdeepfm import CIN
from graphrec.kernels.interaction import project
from graphrec.pipelines.tables.features import Batch, FeatureSpec
from graphrec.registry import create_model, list_models, model_options

WITH_INTERACTIONS = [name for name in list_models(task="ctr") if name != "lr"]
STEPS = 80
SIZES: dict[str, Any] = {
    "embedding_dim": 8,
    "embedding_std": 0.1,
    "hidden_units": (32,),
    "hidden_units1": (32,),
    "hidden_units2": (32,),
    "bottom_units": (32,),
    "expert_units": (32,),
    "tower_units": (16,),
    "block_units": (16, 16),
    "head_dim": 8,
    "deep_dropout": 0.0,
    "shallow_dropout": 0.0,
    "dropout": 0.0,
}


def task(name: str) -> FeatureSpec:
    """Two categorical fields; BST and DIN also get a history, which is noise."""
    return make_spec(CATEGORICAL, ITEM, *([HISTORY] if name in ("bst", "din") else []))


def exclusive_or(spec: FeatureSpec, rows: int, seed: int) -> Batch:
    """The label is whether the parities of the two categorical ids differ."""
    features = make_features(spec, rows, seed)
    parity = features.categorical % 2
    return Batch(features, (parity[:, :1] != parity[:, 1:]).float())


def auc_after_training(name: str, ablate: Callable[[CTRModel], None] | None = None, **options: Any) -> float:
    """AUC on new rows."""
    torch.manual_seed(0)
    spec, known = task(name), model_options(name)
    sizes = {key: value for key, value in SIZES.items() if known.get(key)}
    model = create_model(name, spec, **{**sizes, **options})
    if ablate is not None:
        ablate(model)
    batch = exclusive_or(spec, 256, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.training_loss(batch).backward()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = dense(parameter.grad)
        optimizer.step()
    new = exclusive_or(spec, 500, seed=1)
    return float(roc_auc_score(new.labels, model.eval().predict(new).detach()))


@pytest.mark.parametrize("name", WITH_INTERACTIONS)
def test_interactions_are_learned(name: str) -> None:
    assert auc_after_training(name) > 0.95


def test_logistic_regression_cannot() -> None:
    assert auc_after_training("lr") < 0.7


class Nothing(nn.Module):
    """Stands in for a part that gives interactions: zeros of one output."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.new_zeros(len(vectors), 1)


def replace(model: nn.Module, kind: type[nn.Module], other: nn.Module) -> None:
    for name, child in model.named_children():
        if isinstance(child, kind):
            setattr(model, name, other)
        else:
            replace(child, kind, other)


def no_attention(model: CTRModel) -> None:
    """Fields attend to themselves only."""
    for layer in model.modules():
        if isinstance(layer, InteractingLayer):
            layer.forward = lambda x, layer=layer: alone(layer, x)  # type: ignore[method-assign, misc]


def alone(layer: InteractingLayer, x: Tensor) -> Tensor:
    _, _, value, residual = project(
        x, layer.project.weight, layer.project.bias, heads=layer.heads, residual=True, rectify=True
    )
    assert layer.norm is not None
    assert residual is not None
    return layer.norm(torch.relu(value.transpose(1, 2).flatten(2) + residual))


def no_cross_layers(model: CTRModel) -> None:
    """Cross networks of DCN-V2 and GDCN give what they are given."""
    for network in model.modules():
        if isinstance(network, CrossNetV2):
            network.layers = nn.ModuleList()


def no_crossing(model: CTRModel) -> None:
    """Cross networks keep their heads but skip their layers."""
    for network in model.modules():
        if isinstance(network, CrossNetwork):
            network.layers = nn.ModuleList()


@pytest.mark.parametrize(
    ("name", "ablate", "options"),
    [
        ("fm", lambda m: replace(m, FactorPairs, Nothing()), {}),
        ("fwfm", lambda m: replace(m, FieldPairs, Nothing()), {}),
        ("dcnv2", no_cross_layers, {"structure": "cross"}),
        ("gdcn", no_cross_layers, {"structure": "cross"}),
        ("fcn", no_crossing, {}),
        ("ecn", no_crossing, {}),
        ("lcn", no_crossing, {}),
        ("autoint", no_attention, {}),
        ("dnn", None, {"hidden_units": ()}),
        ("deepfm", lambda m: replace(m, FactorPairs, Nothing()), {"hidden_units": ()}),
        ("xdeepfm", lambda m: replace(m, CIN, Nothing()), {"hidden_units": ()}),
    ],
)
def test_without_its_interaction_it_fails(
    name: str, ablate: Callable[[CTRModel], None] | None, options: dict[str, Any]
) -> None:
    assert auc_after_training(name, ablate=ablate, **options) < 0.7


def test_the_task_has_no_main_effects() -> None:
    batch = exclusive_or(task("lr"), 2000, seed=0)
    for column in (0, 1):
        assert roc_auc_score(batch.labels, batch.features.categorical[:, column] % 2) == pytest.approx(
            0.5, abs=0.1
        )
