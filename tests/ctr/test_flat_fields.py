"""Linear maps of factored fields are those of their vectors, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from graphrec.ctr.embedding import FusedEmbedding
from graphrec.ctr.flat_fields import NumericVectors
from graphrec.ctr.layers import MLP, CrossNetV2
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field

MIXED = FeatureSpec(
    (
        Field("price", "numeric"),
        Field("item", "categorical", size=9),
        Field("age", "numeric"),
        Field("height", "numeric"),
        Field("tags", "multi", size=6, length=3),
        Field("user", "categorical", size=5),
    )
)
NUMERIC = FeatureSpec((Field("price", "numeric"), Field("age", "numeric")))
CATEGORICAL = FeatureSpec((Field("item", "categorical", size=9), Field("user", "categorical", size=5)))


def batch(spec: FeatureSpec, rows: int) -> Features:
    torch.manual_seed(1)
    ids = [torch.randint(0, f.size, (rows,), dtype=torch.int32) for f in spec.categorical]
    numeric = torch.randn(rows, len(spec.numeric))
    numeric[::2] = math.nan
    return Features(
        torch.stack(ids, 1) if ids else torch.empty(rows, 0, dtype=torch.int32),
        numeric,
        tuple(torch.randint(0, f.size, (rows, f.length), dtype=torch.int32) for f in spec.lists),
    )


def gradients(found: Tensor, modules: list[nn.Module]) -> list[Tensor]:
    parameters = [p for module in modules for p in module.parameters()]
    weight = torch.linspace(-1, 1, found.numel()).view_as(found)
    grads = torch.autograd.grad((found * weight).sum(), parameters, allow_unused=True)
    return [torch.empty(0) if g is None else g.to_dense() if g.is_sparse else g for g in grads]


@pytest.mark.parametrize("spec", [MIXED, NUMERIC, CATEGORICAL], ids=["mixed", "numeric", "categorical"])
@pytest.mark.parametrize("dim", [1, 16])
@pytest.mark.parametrize("rows", [1, 7])
def test_linear_equals_the_layer_on_the_vectors(spec: FeatureSpec, dim: int, rows: int) -> None:
    embedding, features = FusedEmbedding(spec, dim, init_std=1.0), batch(spec, rows)
    layer = nn.Linear(dim * len(spec.fields), 3)
    fields = embedding.flat(features)
    found, wanted = fields.linear(layer), layer(embedding(features).flatten(1))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradients(found, [embedding, layer]), gradients(wanted, [embedding, layer]))
    torch.testing.assert_close(fields.vectors, embedding(features), rtol=0, atol=0)


@pytest.mark.parametrize(
    "network",
    [MLP(96, (5, 4), out=2), MLP(96, (), out=2), MLP(96, ()), CrossNetV2(96, 2)],
    ids=["perceptron", "one layer", "no layer", "cross layers"],
)
def test_networks_take_either_form(network: nn.Module) -> None:
    embedding, features = FusedEmbedding(MIXED, 16, init_std=1.0), batch(MIXED, 7)
    found, wanted = network(embedding.flat(features)), network(embedding(features).flatten(1))
    torch.testing.assert_close(found, wanted)
    both = [embedding, network]
    torch.testing.assert_close(gradients(found, both), gradients(wanted, both))


def test_numeric_fields_are_two_inputs_each() -> None:
    embedding, features = FusedEmbedding(MIXED, 16), batch(MIXED, 7)
    multiplied: list[tuple[int, ...]] = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten.addmm.default:
                multiplied.append(tuple(args[1].shape))
            return func(*args, **(kwargs or {}))

    with Watched():
        embedding.flat(features).linear(nn.Linear(96, 3))
    assert multiplied == [(7, 64)]  # 3 * 16 of ids and 3 * 2 of numbers, filled up; the vectors have 96


def test_a_missing_value_is_a_vector_of_its_own() -> None:
    values = torch.tensor([[2.0, math.nan]])
    found = NumericVectors.of(values, torch.full((2, 3), 5.0), torch.full((2, 3), 7.0)).dense()
    assert found.tolist() == [[[10.0] * 3, [7.0] * 3]]
