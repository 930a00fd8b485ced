"""AutoInt against its equations, written as loops over rows, heads and fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ctr_tables import MIXED, make_features, make_spec

from graphrec.ctr import AutoInt
from graphrec.ctr.autoint import InteractingLayer
from graphrec.errors import ConfigError
from graphrec.registry import create_model

HEADS, HEAD_DIM, WIDTH = 2, 3, 5


def layer_by_loops(layer: InteractingLayer, x: np.ndarray, paper: bool, residual: bool) -> np.ndarray:
    """One interacting layer of the paper or of the official code: (B, F, d) to (B, F, h d')."""
    weight = layer.project.weight.detach().double().numpy()
    bias = 0.0 if layer.project.bias is None else layer.project.bias.detach().double().numpy()
    batch, fields, _ = x.shape
    out = np.zeros((batch, fields, HEADS * HEAD_DIM))
    size = HEADS * HEAD_DIM
    for b in range(batch):
        mapped = np.array([weight @ x[b, m] + bias for m in range(fields)])
        if not paper:
            mapped = np.maximum(mapped, 0)
        query, key, value = (mapped[:, i * size : (i + 1) * size] for i in range(3))
        for h in range(HEADS):
            part = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
            for m in range(fields):
                scores = [float(query[m, part] @ key[k, part]) for k in range(fields)]
                if not paper:
                    scores = [s / math.sqrt(HEAD_DIM) for s in scores]
                total = sum(math.exp(s) for s in scores)
                for k in range(fields):
                    out[b, m, part] += math.exp(scores[k]) / total * value[k, part]
        if residual:
            out[b] += mapped[:, 3 * size :]
    out = np.maximum(out, 0)
    if paper:
        return out
    assert layer.norm is not None
    mean, variance = out.mean(-1, keepdims=True), out.var(-1, keepdims=True)
    gain, shift = layer.norm.weight.detach().double().numpy(), layer.norm.bias.detach().double().numpy()
    return (out - mean) / np.sqrt(variance + 1e-8) * gain + shift


def compare(paper: bool, residual: bool) -> None:
    torch.manual_seed(0)
    options = {"num_heads": HEADS, "head_dim": HEAD_DIM, "num_layers": 2}
    model = AutoInt(
        make_spec(), embedding_dim=WIDTH, embedding_std=1.0, paper=paper, residual=residual, **options
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model = model.double()
    features = make_features(make_spec(), 6)
    features = features._replace(numeric=features.numeric.double())
    x = model.embedding(features).detach().numpy()
    for layer in model.layers:
        assert isinstance(layer, InteractingLayer)
        x = layer_by_loops(layer, x, paper, residual)
    expected = x.reshape(6, -1) @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    np.testing.assert_allclose(model(features).detach().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("residual", [True, False])
def test_official_equations(residual: bool) -> None:
    compare(paper=False, residual=residual)


@pytest.mark.parametrize("residual", [True, False])
def test_paper_equations(residual: bool) -> None:
    compare(paper=True, residual=residual)


def test_autoint_plus_adds_an_mlp_on_the_embeddings() -> None:
    torch.manual_seed(0)
    model = create_model("autoint_plus", make_spec(labels=2), hidden_units=(8,)).eval()
    features = make_features(make_spec(labels=2), 4)
    joint, deep = model(features), model.mlp(model.embedding(features).flatten(1))
    mlp, model.mlp = model.mlp, None
    torch.testing.assert_close(joint, model(features) + deep)
    assert [type(m).__name__ for m in mlp] == ["Linear", "ReLU", "Linear"]


def test_published_size_of_a_layer() -> None:
    """Four dense layers of 16 -> 64 with bias and a layer normalisation; then 64 -> 64."""
    model = AutoInt(make_spec())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in model.layers]
    assert sizes == [4 * (16 * 64 + 64) + 128, *[4 * (64 * 64 + 64) + 128] * 2]


def test_the_fused_projection_starts_as_four_glorot_layers() -> None:
    torch.manual_seed(0)
    weight = InteractingLayer(64, 2, 32, residual=True, dropout=0.0, paper=False).project.weight
    bound = math.sqrt(6 / (64 + 64))
    for part in weight.chunk(4):
        assert part.abs().max() <= bound
        assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_interactions_are_attention_weights() -> None:
    torch.manual_seed(0)
    model = AutoInt(make_spec(), embedding_std=0.5)
    pairs = model.field_interactions(make_features(make_spec(), 30))
    torch.testing.assert_close(pairs.sum(1), torch.ones(len(MIXED)))


def test_fields_are_interchangeable() -> None:
    """A layer commutes with any permutation of the fields."""
    torch.manual_seed(0)
    layer = InteractingLayer(6, 2, 4, residual=True, dropout=0.0, paper=False)
    x, order = torch.randn(3, 5, 6), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="num_layers: 0 is too few"):
        AutoInt(make_spec(), num_layers=0)
    with pytest.raises(ConfigError, match="head_dim: -1 is too few"):
        AutoInt(make_spec(), head_dim=-1)
