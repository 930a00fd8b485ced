"""Shared blocks of the CTR models."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from ctr_tables import CATEGORICAL, ITEM, NUMERIC, make_features, make_spec
from torch import Tensor

from graphrec.ctr import DCNv2, FinalMLP, FwFM
from graphrec.ctr.field_pairs import FieldPairs
from graphrec.ctr.finalmlp import BilinearFusion
from graphrec.ctr.layers import (
    MLP,
    BatchNorm,
    CrossNetV2,
    Dice,
    FactorPairs,
    attention_weights,
    cross_importance,
)
from graphrec.errors import ConfigError


def test_batch_norm_equals_torch_and_takes_one_row() -> None:
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm1d(3)
    x = torch.randn(8, 3) * 2 + 1
    torch.testing.assert_close(ours(x), theirs(x))
    ours.train()
    row = torch.randn(1, 3)
    torch.testing.assert_close(ours(row), theirs.eval()(row))


def test_dice_equals_its_equation() -> None:
    layer = Dice(3)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.0, 0.5, -1.0]))
    x = torch.randn(50, 3)
    p = torch.sigmoid((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-9).sqrt())
    torch.testing.assert_close(layer(x), p * x + (1 - p) * layer.alpha * x)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "gelu", "silu", "sigmoid", "tanh", "prelu", "dice"])
def test_mlp_layout(name: str) -> None:
    mlp = MLP(5, (4, 3), out=2, activation_name=name, dropout=0.1, batch_norm=True)
    kinds = [type(layer).__name__ for layer in mlp]
    assert [k for i, k in enumerate(kinds) if i not in (2, 6)] == [
        *["Linear", "BatchNorm", "Dropout"] * 2,
        "Linear",
    ]
    assert mlp(torch.randn(7, 5)).shape == (7, 2)
    assert mlp.out_features == 2


def test_empty_mlp_is_the_identity() -> None:
    x = torch.randn(2, 5)
    mlp = MLP(5, ())
    assert torch.equal(mlp(x), x)
    assert mlp.out_features == 5


def test_unknown_activation_is_named() -> None:
    with pytest.raises(ConfigError, match="activation: there is no 'swish'; use relu, leaky_relu"):
        MLP(5, (4,), activation_name="swish")


def test_factor_pairs_are_the_sum_over_pairs() -> None:
    vectors = torch.randn(4, 5, 3, dtype=torch.double)
    terms = sum(vectors[:, i] * vectors[:, j] for i, j in combinations(range(5), 2))
    torch.testing.assert_close(FactorPairs(3, 1)(vectors), terms.sum(1, keepdim=True))  # type: ignore[union-attr]
    several = FactorPairs(3, 2).double()
    assert several.label_weight is not None
    with torch.no_grad():
        several.label_weight.copy_(torch.tensor([[1.0, 0], [0, 2], [1, 0]]))
    expected = torch.stack([terms[:, 0] + terms[:, 2], 2 * terms[:, 1]], 1)  # type: ignore[index]
    torch.testing.assert_close(several(vectors), expected)


@pytest.mark.parametrize("labels", [1, 3])
def test_field_pairs_are_the_weighted_sum_over_pairs(labels: int) -> None:
    vectors = torch.randn(4, 5, 3)
    layer = FieldPairs(5, labels)
    expected = torch.zeros(4, labels)
    for p, (i, j) in enumerate(combinations(range(5), 2)):
        expected += (vectors[:, i] * vectors[:, j]).sum(1, keepdim=True) * layer.strength[:, p]
    torch.testing.assert_close(layer(vectors), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(vectors), expected)


@pytest.mark.parametrize(("labels", "rows"), [(1, 4), (3, 4), (1, 1), (2, 600), (1, 0)])
def test_gradients_of_field_pairs(labels: int, rows: int) -> None:
    """As autograd takes them of the pairs one by one, also twice, also where one of them is frozen."""
    torch.manual_seed(0)
    layer, vectors = FieldPairs(5, labels).double(), torch.randn(rows, 5, 3, dtype=torch.float64)

    def one_by_one(vectors: Tensor, strength: Tensor) -> Tensor:
        pairs = vectors[:, layer.rows] * vectors[:, layer.columns]  # (B, P, d)
        return pairs.sum(2) @ strength.T

    def gradients(found: Tensor, inputs: list[Tensor]) -> list[Tensor]:
        first = torch.autograd.grad(found.pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(one.pow(3).sum() for one in first), inputs)
        return [*first, *second]

    vectors.requires_grad_()
    inputs = [vectors, layer.strength]
    wanted = gradients(one_by_one(*inputs), inputs)
    for mine, other in zip(gradients(layer(vectors), inputs), wanted, strict=True):
        torch.testing.assert_close(mine, other)
    (frozen,) = torch.autograd.grad(layer(vectors.detach()).pow(3).sum(), [layer.strength])
    torch.testing.assert_close(frozen, wanted[1])
    layer.requires_grad_(False)
    (frozen,) = torch.autograd.grad(layer(vectors).pow(3).sum(), [vectors])
    torch.testing.assert_close(frozen, wanted[0])


def test_unit_strengths_make_fwfm_a_factorisation_machine() -> None:
    vectors, layer = torch.randn(4, 5, 3), FieldPairs(5, 1)
    torch.nn.init.ones_(layer.strength)
    torch.testing.assert_close(layer(vectors), FactorPairs(3, 1)(vectors))


def test_fusion_of_several_labels_is_one_fusion_each() -> None:
    torch.manual_seed(0)
    fusion = BilinearFusion(4, 6, 3, heads=2)
    left, right = torch.randn(5, 4), torch.randn(5, 6)
    weight = fusion.weight.view(2, 2, 3, 3)  # [heads, left, labels, right]
    form = torch.einsum("bhx,hxty,bhy->bt", left.view(5, 2, 2), weight, right.view(5, 2, 3))
    torch.testing.assert_close(fusion(left, right), fusion.left(left) + fusion.right(right) + form)


def test_masked_attention() -> None:
    query, key = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()
    weights = attention_weights(query, key, 0.5, mask)
    alone = (0.5 * query[0] @ key[0, :, mask[0]].transpose(-1, -2)).softmax(-1)
    torch.testing.assert_close(weights[0][..., mask[0]], alone)
    assert weights[0][..., ~mask[0]].eq(0).all()
    assert weights[1].eq(0).all()


def test_cross_network_follows_its_recursion() -> None:
    torch.manual_seed(0)
    network, x = CrossNetV2(4, 2), torch.randn(3, 4)
    first, second = network.layers
    middle = x * (x @ first.weight.T + first.bias) + x
    torch.testing.assert_close(network(x), x * (middle @ second.weight.T + second.bias) + middle)


def test_cross_importance_is_the_block_norm_by_the_sizes() -> None:
    kernel = torch.arange(16.0).view(2, 2, 2, 2)
    vectors = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
    norms = torch.tensor([[kernel[i, :, j].norm() for j in range(2)] for i in range(2)])
    expected = norms * torch.tensor([[25.0, 5.0], [5.0, 1.0]])
    torch.testing.assert_close(cross_importance([kernel, kernel], vectors), expected)


@pytest.mark.parametrize("options", [{"rank": 2}, {"structure": "stacked"}, {"structure": "cross"}])
def test_structures_of_dcnv2_run(options: dict[str, object]) -> None:
    spec = make_spec(CATEGORICAL, NUMERIC, ITEM, labels=2)
    model = DCNv2(spec, hidden_units=(6,), **options)  # type: ignore[arg-type]
    features = make_features(spec, 4)
    assert model(features).shape == (4, 2)
    assert model.field_interactions(features).shape == (3, 3)


def test_one_field_gates_by_context_and_others_do_not_matter() -> None:
    spec = make_spec(CATEGORICAL, NUMERIC, ITEM)
    torch.manual_seed(0)
    model = FinalMLP(spec, context1=("item",), embedding_std=1.0)
    features = make_features(spec, 6)
    assert model.gate1 is not None
    gate = model.gate1(features)
    changed = features.categorical.clone()
    changed[:, 0] = (changed[:, 0] + 1) % CATEGORICAL.size
    assert torch.equal(model.gate1(features._replace(categorical=changed)), gate)
    changed[:, 1] = (changed[:, 1] + 1) % ITEM.size
    assert not torch.equal(model.gate1(features._replace(categorical=changed)), gate)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda spec: DCNv2(spec, structure="both"),
            "structure: there is no 'both'; use parallel, stacked, cross",
        ),
        (lambda spec: DCNv2(spec, num_layers=0), "num_layers: 0 is too few"),
        (lambda spec: FwFM(spec, linear="none"), "linear: there is no 'none'"),
        (lambda spec: FinalMLP(spec, num_heads=3), "num_heads: 3 does not divide"),
        (
            lambda spec: FinalMLP(spec, context1=("size",)),
            "context: there is no field 'size'; the table has colour",
        ),
    ],
)
def test_mistakes_are_named(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(make_spec())  # type: ignore[operator]
