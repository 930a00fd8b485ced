"""xDeepFM's compressed interaction network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ctr_tables import CATEGORICAL, ITEM, NUMERIC, make_features, make_spec
from torch import Tensor

from graphrec.ctr import XDeepFM, compressed
from graphrec.ctr.xdeepfm import CIN
from graphrec.errors import ConfigError


def by_definition(cin: CIN, vectors: Tensor, split: bool) -> Tensor:
    """Equations 6 to 8 with a loop over the vectors of each layer."""
    fields, x, sums = list(vectors.unbind(1)), list(vectors.unbind(1)), []
    for k, layer in enumerate(cin.layers):
        made = []
        for h in range(layer.out_features):
            products = [a * b for a in fields for b in x]
            made.append(sum(w * p for w, p in zip(layer.weight[h], products, strict=True)))
            if layer.bias is not None:
                made[-1] = made[-1] + layer.bias[h]
        half = len(made) // 2 if split and k < len(cin.layers) - 1 else 0
        sums += [vector.sum(1) for vector in made[half:]]
        x = made[: half or None]
    return torch.stack(sums, 1) @ cin.head.weight.T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("units", [(3,), (4, 3), (4, 2, 3)], ids=len)
def test_follows_its_equations(units: tuple[int, ...], split: bool, bias: bool) -> None:
    torch.manual_seed(0)
    cin, vectors = CIN(3, units, 2, split=split, bias=bias).double(), torch.randn(5, 3, 4).double()
    torch.testing.assert_close(cin(vectors), by_definition(cin, vectors, split))


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_blocks_of_rows_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_BLOCK_FLOATS", 3 * 4 * 2)  # two rows
    torch.manual_seed(0)
    shapes = ((rows, 3), (rows, 4), (5, 12))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    found = compressed.compressed_products(*inputs)
    a, b, weight = inputs
    expected = torch.einsum("ni,nj,kij->nk", a, b, weight.view(5, 3, 4))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.pow(2).sum(), inputs) for y in (found, expected)]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_keeps_no_products_for_the_gradient() -> None:
    kept: list[int] = []
    cin = CIN(13, (11, 10, 9), 1, split=False, bias=False)
    vectors = torch.randn(17, 13, 5, requires_grad=True)

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        cin(vectors)
    assert max(kept) <= max(17 * 13 * 10, *(layer.weight.numel() for layer in cin.layers))  # inner products


def test_pairs_of_fields_are_those_of_the_first_layer() -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, NUMERIC, ITEM)
    model = XDeepFM(spec, embedding_dim=4, embedding_std=1.0, cin_units=(2,))
    features = make_features(spec, 12)
    with torch.no_grad():
        weight = model.cin.layers[0].weight.view(2, 3, 3)
        weight.zero_()
        weight[0, 0, 2], weight[1, 2, 0] = 3.0, -1.0
        model.cin.head.weight.copy_(torch.tensor([[1.0, 2.0]]))
    pairs, vectors = model.field_interactions(features), model.embedding(features).detach()
    expected = torch.zeros(3, 3)
    expected[0, 2] = expected[2, 0] = (vectors[:, 0] * vectors[:, 2]).sum(1).abs().mean()  # 3 - 2 = 1
    torch.testing.assert_close(pairs, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cin_units": ()}, "cin_units: 0 is too few"),
        ({"cin_units": (4, 0)}, "cin_units: 0 is too few"),
        ({"cin_units": (5, 4), "split": True}, "cin_units: 5 cannot be halved; use even numbers"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        XDeepFM(make_spec(), **options)
