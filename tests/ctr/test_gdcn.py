"""GDCN's gates."""

from __future__ import annotations

import pytest
import torch
from ctr_tables import CATEGORICAL, ITEM, NUMERIC, make_features, make_spec

from graphrec.ctr import GDCN
from graphrec.ctr.gdcn import GatedCrossNet
from graphrec.ctr.layers import CrossNetV2
from graphrec.errors import ConfigError


def test_two_layers_by_hand() -> None:
    network = GatedCrossNet(2, 2)
    swap, zero = torch.tensor([[0.0, 1], [1, 0]]), torch.zeros(2, 2)
    with torch.no_grad():
        for layer, weight, bias in zip(network.layers, (swap, zero), ([0.0, 1], [2.0, 3]), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(torch.tensor(bias))
        for gate, weight in zip(network.gates, (zero, torch.eye(2)), strict=True):
            gate.weight.copy_(weight)
    first = [1.0, -2.0]
    middle = [1 + 1 * -2 * 0.5, -2 - 2 * (1 + 1) * 0.5]  # closed gates would give half
    opened = torch.tensor(middle).sigmoid()
    expected = torch.tensor(middle) + torch.tensor([1.0 * 2, -2 * 3]) * opened
    torch.testing.assert_close(network(torch.tensor([first])), expected[None])


def test_open_gates_leave_the_cross_network_of_dcnv2() -> None:
    torch.manual_seed(0)
    gated, plain, x = GatedCrossNet(3, 2), CrossNetV2(3, 2), torch.rand(5, 3) + 0.5
    with torch.no_grad():
        for layer in gated.layers:
            layer.weight.abs_()  # keeps x positive, so that large gates open
        for gate in gated.gates:
            gate.weight.fill_(100.0)
    plain.layers.load_state_dict(gated.layers.state_dict())
    torch.testing.assert_close(gated(x), plain(x))


def test_fields_whose_gate_is_shut_do_not_interact() -> None:
    torch.manual_seed(0)
    spec = make_spec(CATEGORICAL, NUMERIC, ITEM)
    model, features = GDCN(spec, embedding_dim=2, embedding_std=1.0, num_layers=1), make_features(spec, 40)
    before = model.field_interactions(features)
    with torch.no_grad():
        model.embedding.weight.abs_()
        model.cross.gates[0].weight.zero_()  # half open
        half = model.field_interactions(features)
        model.cross.gates[0].weight[:2, :2] = -1e4  # shut by the first field for the first field
        shut = model.field_interactions(features)
    assert before is not None
    assert shut is not None
    assert half is not None
    torch.testing.assert_close(shut[1:], half[1:])
    assert shut[0].max() < 1e-3 * half[0].max()


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="structure: there is no 'serial'; use parallel, stacked, cross"):
        GDCN(make_spec(), structure="serial")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_layers: 0 is too few"):
        GDCN(make_spec(), num_layers=0)
