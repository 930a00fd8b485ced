"""MaskNet's parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ctr_tables import CATEGORICAL, ITEM, NUMERIC, make_features, make_spec
from torch import nn

from graphrec.ctr import MaskNet
from graphrec.ctr.masknet import FieldNorm, MaskBlock
from graphrec.errors import ConfigError


def test_a_block_by_hand() -> None:
    block = MaskBlock(2, 2, 1, 1, activation_name="relu", layer_norm=False, dropout=0.0)
    first, _, second = block.mask
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 2.0]]))
        first.bias.fill_(-1.0)
        second.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        second.bias.copy_(torch.tensor([0.0, 0.5]))
        block.linear.weight.copy_(torch.tensor([[3.0, 1.0]]))
    x, hidden = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, 4.0], [1.0, 4.0]])
    # ReLU(1 + 2 - 1) = 2, so the mask is (4, -1.5); ReLU(1 - 2 - 1) = 0, so it is (0, 0.5)
    expected = torch.tensor([[3 * 4.0 - 1.5 * 4], [0.5 * 4]])
    torch.testing.assert_close(block(x, hidden), expected)


def test_fields_are_normalised_each_with_its_own_gain() -> None:
    norm, vectors = FieldNorm(2, 4), torch.randn(3, 2, 4) * 5 + 2
    with torch.no_grad():
        norm.weight[1] = 3.0
        norm.bias[1] = torch.arange(4.0)
    plain = nn.LayerNorm(4)
    torch.testing.assert_close(norm(vectors)[:, 0], plain(vectors[:, 0]))
    torch.testing.assert_close(norm(vectors)[:, 1], 3 * plain(vectors[:, 1]) + torch.arange(4.0))


def test_a_field_without_weights_guides_no_mask() -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, NUMERIC, ITEM)
    model = MaskNet(spec, embedding_dim=2, embedding_std=1.0, block_units=(4, 3))
    features = make_features(spec, 12)
    with torch.no_grad():
        for block in model.blocks:
            block.mask[0].weight[:, 2:4] = 0.0  # the second field's inputs
            block.mask[2].weight[4:] = 0.0  # the third field's mask
    pairs = model.field_interactions(features)
    zero = torch.zeros(3, 3, dtype=torch.bool)
    zero[:, 1] = zero[2] = True
    assert torch.equal(pairs == 0, zero)


@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_rare_ids_stay_small_unless_they_are_normalised(structure: Any) -> None:
    """The vector of an id that its prior holds near zero changes the logit little."""
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM)
    moved = {}
    for norm in (False, True):
        model = MaskNet(spec, structure=structure, embedding_std=1.0, embedding_norm=norm, layer_norm=norm)
        with torch.no_grad():
            model.embedding.weight[model.embedding.rows(ITEM)] *= 0.01
        features = make_features(spec, 30)
        other = features.categorical.clone()
        other[:, 1] = (other[:, 1] + 1) % ITEM.size
        with torch.no_grad():
            change = model(features) - model(features._replace(categorical=other))
        moved[norm] = change.abs().mean().item()
    assert moved[False] < 0.1 * moved[True]


@pytest.mark.parametrize("structure", ["parallel", "serial"])
def test_small_embeddings_are_let_through_at_the_start(structure: Any) -> None:
    """Three masks near zero would leave the logit of embeddings of 1e-4 without a gradient."""
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM)
    model, features = MaskNet(spec, structure=structure), make_features(spec, 30)
    model(features).sum().backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient.to_dense().abs().mean() > 1e-3


def test_blocks_share_the_embeddings_and_not_the_masks() -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, ITEM)
    serial = MaskNet(spec, structure="serial", block_units=(6, 5))
    parallel = MaskNet(spec, structure="parallel", block_units=(6, 5), mask_ratio=0.5)
    assert [block.linear.in_features for block in serial.blocks] == [32, 6]
    assert [block.linear.in_features for block in parallel.blocks] == [32, 32]
    assert [block.mask[0].in_features for block in serial.blocks] == [32, 32]
    assert [block.mask[0].out_features for block in parallel.blocks] == [16, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "stacked"}, "structure: there is no 'stacked'; use parallel, serial"),
        ({"block_units": ()}, "block_units: 0 is too few"),
        ({"mask_ratio": 0.0}, "mask_ratio: 0.0 is not positive; use 1 or 2"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskNet(make_spec(), **options)
