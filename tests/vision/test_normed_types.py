"""What stands behind a norm in 16 bits, by autocast or throughout: as exact as torch, and kept once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from vision_tools import kept_bytes

from graphrec.kernels.attention import core
from graphrec.vision.layers import Conv2d, Linear, NormReLU, gated

HALVES = [torch.bfloat16, torch.float16]


class Gate(nn.Module):
    """``x`` times what is drawn from its means; ``plain`` is torch's."""

    plain = False

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True).sigmoid()
        return x * gate if self.plain else gated(x, gate)


PAIRS: dict[str, Callable[[], nn.Sequential]] = {
    "linear": lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), Linear(8, 6)),
    "conv": lambda: nn.Sequential(
        nn.Conv2d(5, 8, 1), nn.BatchNorm2d(8), NormReLU(), Conv2d(8, 6, 3, 2, 1, bias=False)
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(5, 8, 1), nn.BatchNorm2d(8), NormReLU(), Conv2d(8, 8, 3, 1, 1, groups=8)
    ),
    "gate": lambda: nn.Sequential(nn.Conv2d(5, 8, 1), nn.BatchNorm2d(8), Gate()),
}
PLAIN = {Linear: nn.Linear, Conv2d: nn.Conv2d, NormReLU: nn.ReLU}


def drawn(name: str) -> tuple[nn.Sequential, nn.Sequential, Tensor]:
    """Ours and torch's with the same weights, none of them zero or one, and an input."""
    torch.manual_seed(0)
    ours = PAIRS[name]()
    for one in ours.parameters():
        nn.init.normal_(one)
    plain = copy.deepcopy(ours)
    for layer in plain:
        layer.__class__ = PLAIN.get(type(layer), type(layer))
        if isinstance(layer, Gate):
            layer.plain = True
    return ours, plain, torch.randn(4, 9, 5) if name == "linear" else torch.randn(4, 5, 9, 7)


def answers(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the parameters."""
    x = x.detach().requires_grad_()
    out = model(x)
    return [out, *torch.autograd.grad(out.float().sin().sum(), [x, *model.parameters()])]


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", PAIRS)
def test_no_worse_than_torch(
    name: str, dtype: torch.dtype, cast: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types are torch's own, and errors against float64 at most its own and one rounding."""
    ours, plain, x = drawn(name)
    if not cast:
        ours, plain, x = ours.to(dtype), plain.to(dtype), x.to(dtype)
    want = answers(copy.deepcopy(plain).double(), x.double())
    monkeypatch.setattr(core, "_SLOW_TYPES", tuple(HALVES) if emulated else ())
    with torch.autocast("cpu", dtype, enabled=cast):
        pair = answers(ours, x), answers(plain, x)
    for one, other, exactly in zip(*pair, want, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        own, torchs = ((found.double() - exactly).norm() for found in (one, other))
        assert own <= 1.25 * torchs + torch.finfo(dtype).eps * exactly.norm()


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_what_the_norm_has_made_is_not_kept(
    name: str, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_SLOW_TYPES", tuple(HALVES) if emulated else ())
    ours, plain, x = drawn(name)
    with torch.autocast("cpu", torch.bfloat16):
        saved = [kept_bytes(model(x)) for model in (plain, ours)]
        made = ours[:2](x)
    biases = 0 if name == "linear" else 4 * 8  # which a batch norm does not keep
    weights = 4 * ours[-1].weight.numel() - 2 * ours[-1].weight.numel() if name != "gate" else 0
    assert saved[0] - saved[1] == 2 * made.numel() - biases - weights


@pytest.mark.parametrize("emulated", [False, True])
def test_a_weight_that_is_used_twice_under_autocast(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once behind a norm and once not: its gradient has both."""
    monkeypatch.setattr(core, "_SLOW_TYPES", tuple(HALVES) if emulated else ())
    ours, plain, x = drawn("linear")
    found = []
    for model in (ours, plain):
        with torch.autocast("cpu", torch.bfloat16):
            made = model(x)
            again = model[2](torch.cat([made, made], -1)[..., :8])
        found.append(torch.autograd.grad(again.float().sum() + made.float().sum(), model[2].weight)[0])
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


@pytest.mark.parametrize("emulated", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_second_derivatives(name: str, emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_SLOW_TYPES", tuple(HALVES) if emulated else ())
    ours, plain, x = drawn(name)
    found = []
    for model in (ours, plain):
        one = x.detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(one).float().sin().sum()
        (first,) = torch.autograd.grad(out, model[0].weight, create_graph=True)
        found.append(torch.autograd.grad(first.float().square().sum(), one)[0])
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()
