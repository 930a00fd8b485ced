"""The layers of GSM's global encoder against their equations, graph by graph."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graphrec.errors import ConfigError
from graphrec.graph.gsm.blocks import AttentionBlock, GlobalEncoder, HierarchicalBias, Sequences
from graphrec.graph.gsm.mamba import Direction, MambaBlock
from graphrec.graph.padding import over_rows

SIZES = (1, 5, 2, 13, 8, 1)
PTR = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()])


def sequences(reach: int, **more: object) -> Sequences:
    nodes = torch.arange(int(PTR[-1]))
    return Sequences(nodes, nodes, PTR, SIZES, reach, **more)  # type: ignore[arg-type]


def tokens(width: int = 8) -> Tensor:
    return torch.randn(int(PTR[-1]), width, generator=torch.Generator().manual_seed(1)).double()


def loop(one: Direction, x: Tensor, gate: Tensor) -> Tensor:
    """Mamba's equations, a step at a time, for one sequence (n, E)."""
    if one.reverse:
        x, gate = x.flip(0), gate.flip(0)
    past = torch.cat([x.new_zeros(3, x.shape[1]), x])
    u = F.silu(
        torch.stack([(past[t : t + 4].T * one.conv_weight).sum(1) for t in range(len(x))]) + one.conv_bias
    )
    step, read_in, read_out = one.project(u).split([one.rank, one.states, one.states], -1)
    delta, state = F.softplus(one.step(step)), x.new_zeros(x.shape[1], one.states)
    found = []
    for t in range(len(x)):
        decay = (delta[t, :, None] * -one.log_decay.exp()).exp()
        state = decay * state + delta[t, :, None] * u[t, :, None] * read_in[t]
        found.append(state @ read_out[t] + one.skip * u[t])
    y = torch.stack(found) * F.silu(gate)
    return y.flip(0) if one.reverse else y


@pytest.mark.parametrize("bidirectional", [False, True])
def test_mamba_is_a_loop(bidirectional: bool) -> None:
    block = MambaBlock(8, states=3, expand=2, bidirectional=bidirectional).double()
    with torch.no_grad():
        for one in block.directions:
            one.conv_bias.uniform_(-1, 1)  # what leaks from padding would show
    x = tokens()
    found = block(x, PTR)
    for start, stop in zip(PTR[:-1].tolist(), PTR[1:].tolist(), strict=True):
        part = x[start:stop]
        inner, gate = block.enter(block.norm(part)).chunk(2, -1)
        want = part + block.leave(sum(loop(one, inner, gate) for one in block.directions))
        torch.testing.assert_close(found[start:stop], want)
    rows = torch.stack([x[:4], x[4:8]])
    alone = torch.cat([block(one, torch.tensor([0, 4])) for one in rows]).view_as(rows)
    torch.testing.assert_close(block.rows(rows), alone)


def test_steps_start_small_and_decay() -> None:
    one = Direction(32, 4, 2, reverse=False)
    start = F.softplus(one.step.bias).detach()
    assert float(start.min()) >= 1e-3 * 0.99
    assert float(start.max()) <= 0.1 * 1.01
    assert (-one.log_decay.exp()).unique().tolist() == pytest.approx([-4, -3, -2, -1])


@pytest.mark.parametrize("reach", [0, 3, 12, 40])
def test_attention_is_a_softmax_in_each_graph(reach: int) -> None:
    block = AttentionBlock(8, 2, scales=2, hops=1).double()
    x, total = tokens(), int(PTR[-1])
    codes = torch.randint(0, 9, (total, 2 * reach + 1), generator=torch.Generator().manual_seed(2))
    found = block(x, sequences(reach, codes=codes))
    assert block.bias is not None
    tables = block.bias.tables
    q, k, v = block.qkv(block.norm(x)).view(total, 3, 2, 4).unbind(1)
    graph = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    logits = torch.full((2, total, total), -math.inf, dtype=torch.float64)
    for i in range(total):
        for j in range(total):
            if graph[i] == graph[j] and abs(i - j) <= reach:
                code = int(codes[i, i + reach - j])
                bias = tables[0, code % 3] + tables[1, code // 3]
                logits[:, i, j] = (q[i] * k[j]).sum(-1) / 2 + bias
    mixed = torch.einsum("hij,jhd->ihd", logits.softmax(-1), v).flatten(1)
    want = x + block.leave(mixed)
    want = want + block.wide(block.wide_norm(want))
    torch.testing.assert_close(found, want)


def test_linear_attention_is_its_formula() -> None:
    block = AttentionBlock(8, 2, kind="linear").double()
    x = tokens()
    found = block(x, sequences(1))
    q, k, v = block.qkv(block.norm(x)).view(len(x), 3, 2, 4).unbind(1)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    for start, stop in zip(PTR[:-1].tolist(), PTR[1:].tolist(), strict=True):
        weights = torch.einsum("ihd,jhd->hij", q[start:stop], k[start:stop])
        mixed = torch.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdim=True), v[start:stop]).flatten(
            1
        )
        want = x[start:stop] + block.leave(mixed)
        torch.testing.assert_close(found[start:stop], want + block.wide(block.wide_norm(want)))
    rows = torch.stack([x[:4], x[4:8]])
    torch.testing.assert_close(
        block.rows(rows)[0], block(x[:4], Sequences(PTR, PTR, torch.tensor([0, 4]), (4,), 3))
    )


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_rows_are_sequences(kind: str) -> None:
    block = AttentionBlock(8, 2, kind=kind).double()
    x = tokens()[:10].view(2, 5, 8)
    whole = Sequences(PTR, PTR, torch.tensor([0, 5, 10]), (5, 5), 4)
    torch.testing.assert_close(block.rows(x).flatten(0, 1), block(x.flatten(0, 1), whole))


def test_digits_of_codes_pick_rows_of_tables() -> None:
    bias = HierarchicalBias(2, 3, 2)
    codes = torch.arange(64).view(8, 8)
    found = bias(codes)
    assert found.shape == (1, 2, 8, 8)
    for code in range(64):
        want = sum(bias.tables[scale, code // 4**scale % 4] for scale in range(3))
        torch.testing.assert_close(found[0, :, code // 8, code % 8], want)


def test_tied_nodes_share_what_recurrence_makes_of_them() -> None:
    encoder = GlobalEncoder(8, 2, encoder="hybrid", states=2).double()
    x = tokens()
    x[2] = x[3]  # of the graph of five nodes
    order = torch.arange(len(x))
    classes = torch.where(order > 2, order - 1, order)
    ptr = F.pad(torch.bincount(classes).cumsum(0), (1, 0))
    tied, plain = encoder(x, sequences(12, ties=(order, ptr, classes))), encoder(x, sequences(12))
    torch.testing.assert_close(tied[2], tied[3])
    assert (plain[2] - plain[3]).abs().max() > 1e-3
    torch.testing.assert_close(tied[6:], plain[6:])  # other graphs are not touched


def test_rows_and_padding_of_nothing() -> None:
    found = over_rows(torch.zeros(0, 3), torch.tensor([0, 0, 0]), lambda x, real: x * real)
    assert found.shape == (0, 3)


@pytest.mark.parametrize("encoder", ["hybrid", "mamba", "transformer"])
def test_every_encoder_learns_everywhere(encoder: str) -> None:
    module = GlobalEncoder(8, 2, encoder=encoder, states=2)
    module(tokens().float(), sequences(3)).square().sum().backward()
    assert [name for name, one in module.named_parameters() if one.grad is None] == []


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="encoder='rnn': must be one of hybrid, mamba, transformer"):
        GlobalEncoder(8, 2, encoder="rnn")
    with pytest.raises(ConfigError, match="attention='cosine'"):
        GlobalEncoder(8, 2, attention="cosine")
    with pytest.raises(ConfigError, match="hidden=10: must be a multiple of heads=4"):
        GlobalEncoder(10, 4)
