"""What stands behind a batch norm and keeps nothing of what it has made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from vision_tools import kept_bytes

from graphrec.vision.layers import ConvNorm, NormReLU, gated

SHAPES = [(2, 1, 1, 2), (1, 6, 5, 7), (2, 6, 5, 7), (3, 6, 8, 8)]


class Pair(nn.Module):
    """Convolution, norm, ReLU, convolution, norm and gate; ``plain`` is torch's of the same weights."""

    def __init__(self, channels: int, *, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain
        self.first = ConvNorm(channels, 4)
        self.act = nn.ReLU(inplace=True) if plain else NormReLU()
        self.second = nn.Conv2d(4, 6, 3, 2, 1, bias=False) if plain else ConvNorm(4, 6, 3, 2, 1).c
        self.norm = nn.BatchNorm2d(6, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.second(self.act(self.first(x))))
        gate = x.mean((2, 3), keepdim=True).sigmoid()
        return x * gate if self.plain else gated(x, gate)


def both(channels: int) -> list[Pair]:
    """Ours and torch's with the same weights, none of them zero or one."""
    torch.manual_seed(0)
    ours, plain = Pair(channels), Pair(channels, plain=True)
    for one in ours.parameters():
        nn.init.normal_(one)
    plain.load_state_dict(ours.state_dict())
    return [ours.double(), plain.double()]


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and gradients of inputs and weights."""
    wanted = [x, *model.parameters()]
    out = model(x)
    return [out, *torch.autograd.grad(out.square().sum(), wanted)]


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.to(memory_format=torch.channels_last)


def _strided(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, _last, _strided])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [1 << 16, 20])
def test_gradients(
    shape: tuple[int, ...], layout: Callable[..., torch.Tensor], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once and in pieces that hold no whole channel, in each layout."""
    monkeypatch.setattr("graphrec.vision.layers.batch_normed.PIECE", piece)
    x = layout(torch.randn(shape, dtype=torch.float64)).requires_grad_()
    for one, other in zip(*(gradients(model, x) for model in both(shape[1])), strict=True):
        torch.testing.assert_close(one, other)


def test_second_derivatives() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for model in both(3):
        wanted = [x, *model.parameters()]
        first = torch.autograd.grad(model(x).pow(3).sum(), wanted, create_graph=True)
        penalty = sum(one.square().sum() for one in first)
        found.append(torch.autograd.grad(penalty, wanted))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_of_what_a_norm_has_made_is_kept() -> None:
    """Twelve numbers of each pixel's channels: four behind the ReLU, six before the gate at a quarter."""
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    ours, plain = (kept_bytes(model(x)) for model in both(3))
    biases = 4 + 6  # which a norm does not keep
    assert plain - ours == 8 * (2 * 4 * 16 * 16 + 2 * 6 * 8 * 8 - biases)


def test_frozen_evaluation_autocast_and_no_norm() -> None:
    """Each of them as torch has it."""
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    ours, plain = both(3)
    for model in (ours, plain):
        model.second.requires_grad_(False)
    assert all(torch.equal(*pair) for pair in zip(ours(x), plain(x), strict=True))
    (one,), (other,) = (torch.autograd.grad(model(x).square().sum(), x) for model in (ours, plain))
    torch.testing.assert_close(one, other)
    ours, plain = both(3)
    for one, other in zip(gradients(ours.eval(), x), gradients(plain.eval(), x), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        out = ours.float().train()(x.float())
    out.sum().backward()
    assert ours.first.c.weight.grad is not None
    act = NormReLU()
    assert torch.equal(act(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_a_second_reader_of_the_relu_and_two_backward_passes() -> None:
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for model in both(3):
        seen = model.act(model.first(x))
        total = model.second(seen).square().sum() + seen.pow(3).sum()
        once = torch.autograd.grad(total, x, retain_graph=True)
        found.append([*once, *torch.autograd.grad(total, [x, *model.first.parameters()])])
        assert torch.equal(found[-1][0], found[-1][1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_compiles_whole() -> None:
    ours = both(3)[0]
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    want = ours(x)
    torch.testing.assert_close(torch.compile(ours, backend="eager", fullgraph=True)(x), want)
