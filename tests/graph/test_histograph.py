"""HISTOGRAPH's readout: its formulas by a loop over graphs, its division, its place beside PyG's models."""

from __future__ import annotations

import math

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.graph.histograph import HistoGraph, layer_positions, record_history, safe_division

SIZES = [1, 5, 2, 9, 1, 3]
PTR = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()])
INDEX = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))


def history(widths: list[int], nodes: int = sum(SIZES)) -> list[Tensor]:
    return [torch.randn(nodes, width, dtype=torch.float64) for width in widths]


def by_hand(readout: HistoGraph, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One graph by the formulas of the module's docstring: vector (D,), weights of the layers (L,)."""
    lifted = [
        lift(one) + position
        for lift, one, position in zip(readout.lift, layers, readout.positions, strict=True)
    ]
    width = readout.hidden
    c = torch.stack(
        [
            torch.stack(
                [readout.query(q) @ readout.key(k) for q, k in zip(lifted[-1], one, strict=True)]
            ).mean()
            / math.sqrt(width)
            for one in lifted
        ]
    )
    alpha = c.softmax(0) if readout.weights == "softmax" else c / c.sum()
    mixed = sum(a * one for a, one in zip(alpha, lifted, strict=True))
    assert isinstance(mixed, Tensor)
    if readout.mix is None:
        return mixed.mean(0), alpha
    attention = nn.MultiheadAttention(width, readout.heads, batch_first=True).double()
    attention.load_state_dict(
        {
            "in_proj_weight": readout.mix.qkv.weight,
            "in_proj_bias": readout.mix.qkv.bias,
            "out_proj.weight": readout.mix.out.weight,
            "out_proj.bias": readout.mix.out.bias,
        }
    )
    normed = readout.mix.norm(mixed)[None]
    return (mixed + attention(normed, normed, normed)[0][0]).mean(0), alpha


@pytest.mark.parametrize("weights", ["signed", "softmax"])
@pytest.mark.parametrize("node_attention", [True, False])
def test_formulas(weights: str, node_attention: bool) -> None:
    readout = HistoGraph([3, 6, 4], 8, 2, weights=weights, node_attention=node_attention, floor=1e-9).double()
    layers = history([3, 6, 4])
    found, (alpha, share) = readout(layers, INDEX), readout.attention(layers, PTR)
    for i, (low, high) in enumerate(zip(PTR[:-1].tolist(), PTR[1:].tolist(), strict=True)):
        want, want_alpha = by_hand(readout, [one[low:high] for one in layers])
        torch.testing.assert_close(found[i], want)
        torch.testing.assert_close(alpha[i], want_alpha)
        torch.testing.assert_close(share[low:high].sum(), torch.tensor(1.0).double(), check_dtype=False)


def test_last_layer_alone() -> None:
    readout = HistoGraph([4, 4], 4, 2, weights="last", node_attention=False).double()
    layers = history([4, 4])
    want = readout.lift[1](layers[1]) + readout.positions[1]
    torch.testing.assert_close(readout(layers, INDEX), pyg.global_mean_pool(want, INDEX))


def test_positions() -> None:
    found = layer_positions(5, 7)
    for layer in range(5):
        for d in range(7):
            angle = layer / 10_000 ** ((d - d % 2) / 7)
            want = math.sin(angle) if d % 2 == 0 else math.cos(angle)
            assert found[layer, d].item() == pytest.approx(want, abs=1e-5)


def test_a_list_equals_a_stack_and_an_index_equals_offsets() -> None:
    readout, layers = HistoGraph([6, 6], 8, 2).double(), history([6, 6])
    want = readout(layers, INDEX)
    torch.testing.assert_close(readout(torch.stack(layers, 1), INDEX), want)
    torch.testing.assert_close(readout(layers, ptr=PTR), want)
    more = readout(layers, INDEX, dim_size=len(SIZES) + 2)  # graphs at the end without nodes
    torch.testing.assert_close(more[:-2], want)
    assert not more[-2:].any()


def test_a_graph_alone_equals_itself_in_a_batch() -> None:
    readout, layers = HistoGraph([5, 5, 5], 8, 4).double(), history([5, 5, 5])
    together = readout(layers, INDEX)
    for i, (low, high) in enumerate(zip(PTR[:-1].tolist(), PTR[1:].tolist(), strict=True)):
        alone = readout([one[low:high] for one in layers])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8), st.floats(0.01, 1.0))
def test_division_is_bounded_and_exact_where_it_can_be(values: list[float], floor: float) -> None:
    scores = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    found = safe_division(scores, floor)
    total, size = scores.sum(), scores.abs().sum()
    assert torch.isfinite(found).all()
    assert found.abs().sum() <= 1 / floor + 1e-6
    if total.abs() > floor * size * (1 + 1e-9) and size > 0:
        torch.testing.assert_close(found, scores / total)
    (grad,) = torch.autograd.grad(found.square().sum(), scores)
    assert torch.isfinite(grad).all()


def test_division_of_scores_that_cancel() -> None:
    torch.testing.assert_close(safe_division(torch.tensor([1.0, -1.0])), torch.tensor([5.0, -5.0]))
    torch.testing.assert_close(safe_division(torch.tensor([1.0, -1.02])), torch.tensor([-1.0, 1.02]) / 0.202)
    assert not safe_division(torch.zeros(3)).any()
    scaled = safe_division(torch.tensor([1e-20, -1e-20]))
    torch.testing.assert_close(scaled, torch.tensor([5.0, -5.0]))


@pytest.mark.parametrize("model", [pyg.GIN, pyg.GCN, pyg.GAT, pyg.GraphSAGE])
def test_drops_into_pyg_models(model: type[nn.Module]) -> None:
    network = model(5, 6, 3)  # type: ignore[call-arg]
    x, edge_index = torch.randn(sum(SIZES), 5), torch.randint(0, sum(SIZES), (2, 60))
    edge_index = edge_index[:, INDEX[edge_index[0]] == INDEX[edge_index[1]]]
    with record_history(network) as layers:
        last = network(x, edge_index)
    assert [tuple(one.shape) for one in layers] == [(sum(SIZES), 6)] * 3
    torch.testing.assert_close(layers[-1], last)
    readout = HistoGraph([6, 6, 6], 8, 2)
    assert isinstance(readout, pyg.Aggregation)
    readout(layers, INDEX).sum().backward()
    for name, parameter in [*readout.named_parameters(), *network.named_parameters()]:
        assert parameter.grad is not None, name
    with record_history(network) as again:
        pass
    network(x, edge_index)
    assert again == []


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="multiple of heads"):
        HistoGraph([4], 6, 4)
    with pytest.raises(ConfigError, match="weights='sum'"):
        HistoGraph([4], 8, 4, weights="sum")
    readout = HistoGraph([4, 4], 8, 4)
    with pytest.raises(DataError, match=r"layers of \[4, 5\] features"):
        readout([torch.zeros(3, 4), torch.zeros(3, 5)])
    with pytest.raises(DataError, match="ascending"):
        readout([torch.zeros(3, 4)] * 2, torch.tensor([0, 1, 0]))
    with pytest.raises(ConfigError, match="has no MessagePassing"), record_history(nn.Linear(2, 2)):
        pass
