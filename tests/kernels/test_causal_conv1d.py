"""Short causal filters against ``torch.nn.functional.conv1d`` and the plain float64 form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_transforms, assert_within_budget, distance
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import causal_conv1d


def draw(batch: int, length: int, width: int, taps: int) -> list[Tensor]:
    """x, weight, bias, state."""
    torch.manual_seed(length)
    sizes = (batch, length, width), (width, taps), (width,), (batch, taps - 1, width)
    return [torch.randn(*size) for size in sizes]


def runner(backend: str, activation: str | None = "silu") -> Callable[..., tuple[Tensor]]:
    def run(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor | None = None) -> tuple[Tensor]:
        return (causal_conv1d(x, weight, bias, activation=activation, state=state, backend=backend),)

    return run


@pytest.mark.parametrize("taps", [1, 2, 4, 7])
@pytest.mark.parametrize("length", [1, 2, 7, 49, 63, 65, 197])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_causal_conv1d(length: int, taps: int, activation: str | None) -> None:
    inputs = draw(2, length, 5, taps)
    run, plain = (runner(name, activation) for name in ("torch", "reference"))
    assert_within_budget(run, plain, inputs)
    x, weight, bias, state = inputs
    padded = torch.cat([state, x], 1).mT
    want = F.conv1d(padded, weight.unsqueeze(1), bias, groups=5).mT
    for backend in ("reference", "torch"):
        found = runner(backend, activation)(*inputs)[0]
        torch.testing.assert_close(found, F.silu(want) if activation else want)


def test_in_parts() -> None:
    x, weight, bias, _ = draw(2, 20, 5, 4)
    whole = causal_conv1d(x, weight, bias)
    later = causal_conv1d(x[:, 9:], weight, bias, state=x[:, 6:9])
    torch.testing.assert_close(later, whole[:, 9:])
    assert causal_conv1d(x[:, :0], weight, bias).shape == (2, 0, 5)


def test_the_past_does_not_see_the_future() -> None:
    x, weight, bias, _ = draw(1, 20, 3, 4)
    before = causal_conv1d(x, weight, bias)[:, :12]
    x[:, 12:] = 99.0
    assert torch.equal(causal_conv1d(x, weight, bias)[:, :12], before)


def test_gradcheck_compile_export_checkpoint() -> None:
    torch._dynamo.reset()
    leaves = [one.double().requires_grad_() for one in draw(1, 6, 3, 4)]
    assert torch.autograd.gradcheck(runner("torch"), leaves)
    assert torch.autograd.gradgradcheck(runner("torch"), leaves)

    class Layer(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            return causal_conv1d(given[0], given[1], given[2], state=given[3]).sin()

    assert_transforms(Layer(), leaves)


def test_autocast() -> None:
    x, weight, bias, _ = draw(2, 20, 5, 4)
    project = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = causal_conv1d(project(x), weight, bias)
    assert distance(out, causal_conv1d(project(x), weight, bias)) < 0.02


ROW = torch.zeros(1, 2, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: causal_conv1d(ROW, torch.zeros(4, 2)), r"weight \(D, W\)"),
        (lambda: causal_conv1d(ROW, torch.zeros(3, 2), activation="gelu"), "activation='gelu'"),
        (lambda: causal_conv1d(ROW, torch.zeros(3, 2), torch.zeros(2)), r"bias of shape \(2,\)"),
        (lambda: causal_conv1d(ROW, torch.zeros(3, 2), state=ROW), "state of shape"),
        (lambda: causal_conv1d(ROW, torch.zeros(3, 17), backend="triton"), "at most 16, not 17"),
        (lambda: causal_conv1d(ROW, torch.zeros(3, 2), backend="fast"), "backend='fast'"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
