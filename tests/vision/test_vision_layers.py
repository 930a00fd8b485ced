"""Shared layers on their own."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from vision_tools import kept_bytes

from graphrec.errors import RunError
from graphrec.vision.layers import (
    GELU,
    ConvNorm,
    GridAttention,
    Linear,
    PatchEmbed,
    ReLU,
    convolved,
    resize_bias_table,
    resize_positions,
)
from graphrec.vision.layers.pieces import mlp_in_pieces


@pytest.mark.parametrize("side", [2, 16])
def test_convolution_of_channels_last(side: int) -> None:
    """A small map, which training copies, and a large one: the same numbers and gradients."""
    conv, x = nn.Conv2d(16, 24, 3, 2, 1), torch.randn(2, side, side, 16, requires_grad=True)
    made = []
    conv.weight.register_hook(lambda grad: made.append(grad.is_contiguous()))
    want = conv(x.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
    (wanted,) = torch.autograd.grad(want.square().sum(), conv.weight)
    found = convolved(conv, x)
    (grad,) = torch.autograd.grad(found.square().sum(), conv.weight)
    assert made[1] or side == 16  # else autograd copies it
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(convolved(conv, x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plain", [nn.GELU(), nn.GELU("tanh"), nn.ReLU()], ids=str)
def test_activation_needs_a_second_tensor_for_gradients_alone(plain: nn.Module) -> None:
    layer = GELU(plain.approximate) if isinstance(plain, nn.GELU) else ReLU()
    x = torch.randn(3, 5)
    want = plain(x)
    with torch.no_grad():
        given = x.clone()
        assert layer(given).data_ptr() == given.data_ptr()
    torch.testing.assert_close(given, want)
    given = x.clone().requires_grad_()
    torch.testing.assert_close(layer(given), want)
    torch.testing.assert_close(given.detach(), x)
    assert torch.autograd.gradcheck(layer, torch.randn(4, dtype=torch.float64, requires_grad=True))


def test_ragged_images_are_padded() -> None:
    layer = PatchEmbed(3, 8, (4, 2), norm=None)
    x = torch.randn(1, 3, 6, 5)
    padded = torch.zeros(1, 3, 8, 6)
    padded[..., :6, :5] = x
    assert layer(x).shape == (1, 2, 3, 8)
    assert torch.equal(layer(x), layer(padded))


def test_grid_attention_is_multi_head_attention() -> None:
    layer, peer = GridAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    layer.qkv.load_state_dict({"weight": peer.in_proj_weight, "bias": peer.in_proj_bias})
    layer.proj.load_state_dict(peer.out_proj.state_dict())
    x = torch.randn(2, 3, 4, 12)
    flat = x.flatten(1, 2)
    assert torch.allclose(layer(x).flatten(1, 2), peer(flat, flat, flat)[0], atol=1e-5)


def test_position_tables_keep_their_prefix() -> None:
    value = torch.randn(1, 2 + 9, 4)
    out = resize_positions(value, torch.empty(1, 2 + 25, 4), prefix=2)
    assert out.shape == (1, 27, 4)
    assert torch.equal(out[:, :2], value[:, :2])
    flat = torch.ones(1, 9, 4)
    assert torch.allclose(
        resize_positions(flat, torch.empty(1, 16, 4), mode="bilinear"), torch.ones(1, 16, 4)
    )


def test_tables_that_cannot_be_resized() -> None:
    with pytest.raises(RunError, match="no square"):
        resize_positions(torch.randn(1, 8, 4), torch.empty(1, 9, 4))
    with pytest.raises(RunError, match="bias table"):
        resize_bias_table(torch.randn(9, 2), torch.empty(25, 3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_a_single_image_as_tokens(layout: torch.memory_format, training: bool) -> None:
    """Against batch norm written out: torch's own reads a gradient with channels last from wrong places."""
    layer = ConvNorm(3, 5).double().train(training)
    nn.init.uniform_(layer.bn.weight)
    x = torch.randn(1, 3, 2, 3, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    weight = torch.randn(1, 6, 5, dtype=torch.float64)

    def by_hand() -> torch.Tensor:
        y, bn = layer.c(x), layer.bn
        mean, variance = bn.running_mean, bn.running_var
        if training:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        scale = bn.weight / (variance + bn.eps).sqrt()
        return (y - mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    wanted = torch.autograd.grad((by_hand().flatten(2).mT * weight).sum(), [x, *layer.parameters()])
    found = torch.autograd.grad((layer(x).flatten(2).mT * weight).sum(), [x, *layer.parameters()])
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other)


def test_network_in_pieces_equals_the_layers() -> None:
    first, last = nn.Linear(2, 8).double(), nn.Linear(8, 3).double()
    x = torch.randn(1100, 2, dtype=torch.float64)
    weights = [*first.parameters(), *last.parameters()]
    made, wanted = mlp_in_pieces(x, first, last), last(first(x).relu()).T
    torch.testing.assert_close(made, wanted)
    grad = torch.randn_like(wanted)
    for mine, theirs in zip(
        torch.autograd.grad(made, weights, grad), torch.autograd.grad(wanted, weights, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_network_in_pieces_is_differentiated_twice_and_frozen_in_part() -> None:
    first, last = nn.Linear(2, 8).double().requires_grad_(False), nn.Linear(8, 3).double()
    x = torch.randn(600, 2, dtype=torch.float64)

    def second(made: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad((made**3).sum(), last.weight, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), last.weight)[0]

    torch.testing.assert_close(second(mlp_in_pieces(x, first, last)), second(last(first(x).relu())))
    assert first.weight.grad is None


def plain(layer: Linear) -> nn.Linear:
    """torch's layer with the same weights."""
    twin = nn.Linear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, dtype=layer.weight.dtype
    )
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_linear_layer_behind_a_norm_is_differentiated_twice(bias: bool, eps: float) -> None:
    norm, ours = nn.LayerNorm(7, eps=eps, dtype=torch.float64), Linear(7, 5, bias=bias, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in (ours, plain(ours)):
        wanted = [x, *norm.parameters(), *layer.parameters()]
        out = layer(norm(x))
        first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(one.square().sum() for one in first), wanted)
        found.append([out, *first, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_output_of_a_norm_is_not_kept() -> None:
    ours = Linear(64, 3)
    x = torch.randn(100, 64)
    saved = [kept_bytes(layer(nn.LayerNorm(64)(x))) for layer in (plain(ours), ours)]
    assert saved[0] - saved[1] == x.numel() * x.element_size()


@pytest.mark.parametrize(
    "norm",
    [
        nn.LayerNorm(8, elementwise_affine=False),
        nn.LayerNorm((3, 8)),
        nn.LayerNorm(8).requires_grad_(False),
        nn.LayerNorm(8, bias=False),
    ],
)
def test_linear_layer_behind_other_norms(norm: nn.LayerNorm) -> None:
    ours, x = Linear(8, 5), torch.randn(2, 3, 8, requires_grad=True)
    found = []
    for layer in (ours, plain(ours)):
        out = layer(norm(x))
        found.append([out, *torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_linear_layer_behind_a_norm_in_bfloat16_and_frozen() -> None:
    model = nn.Sequential(nn.LayerNorm(8), Linear(8, 5))
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    model[1].requires_grad_(False)
    model(x).sum().backward()
    assert x.grad is not None
    assert model[1].weight.grad is None
    low = nn.Sequential(nn.LayerNorm(8), Linear(8, 5)).bfloat16()
    low(x.bfloat16()).sum().backward()
    assert low[1].weight.grad is not None


def test_linear_layer_behind_a_norm_under_a_checkpoint() -> None:
    runs = 0

    class Block(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal runs
            runs += 1
            return super().forward(x)

    block = Block(nn.LayerNorm(8), Linear(8, 5))
    x = torch.randn(3, 8, requires_grad=True)
    wanted = [x, *block.parameters()]
    first = torch.autograd.grad(block(x).square().sum(), wanted)
    runs = 0
    out = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
    again = torch.autograd.grad(out.square().sum(), wanted)
    assert runs == 2
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other)


def test_linear_layer_behind_a_norm_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphrec.vision.layers.normed.PIECE", 20)
    norm, ours, x = nn.LayerNorm(6), Linear(6, 5), torch.randn(2, 4, 6, requires_grad=True)
    found = []
    for layer in (ours, plain(ours)):
        wanted = [x, *norm.parameters(), *layer.parameters()]
        found.append(torch.autograd.grad(layer(norm(x)).square().sum(), wanted))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_linear_layer_behind_a_norm_compiles_whole() -> None:
    """Where it comes from is no question to a compiler, which would end its graph at it."""
    model, x = nn.Sequential(nn.LayerNorm(6), Linear(6, 5)), torch.randn(2, 4, 6)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
