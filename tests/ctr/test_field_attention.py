"""The fused interacting layer equals its composition of torch operations."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from graphrec.ctr.field_attention import interacting_layer


def run(x: Tensor, weight: Tensor, bias: Tensor | None, *, fused: bool, **options: bool) -> list[Tensor]:
    """Output and gradients; dropout of one in 10^12 is no dropout, but takes the composed path."""
    inputs = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    arguments = [*inputs, None][:3]
    out = interacting_layer(*arguments, heads=2, scale=0.7, dropout=0.0 if fused else 1e-12, **options)  # type: ignore[misc, arg-type]
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad(out, inputs, direction)]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("residual", "rectify", "biased"), list(itertools.product([True, False], repeat=3)))
def test_equals_the_composition(rows: int, residual: bool, rectify: bool, biased: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(rows, 4, 5, dtype=torch.double)
    weight = torch.randn((3 + residual) * 6, 5, dtype=torch.double)
    bias = torch.randn(len(weight), dtype=torch.double) if biased else None
    fused, composed = (
        run(x, weight, bias, fused=f, residual=residual, rectify=rectify) for f in (True, False)
    )
    for found, expected in zip(fused, composed, strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        without = interacting_layer(x, weight, bias, heads=2, scale=0.7, residual=residual, rectify=rectify)
    torch.testing.assert_close(without, fused[0].detach())


def test_gradients_are_numerical_gradients() -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((2, 3, 4), (16, 4), (16,))
    ]
    settings = {"heads": 2, "scale": 0.5, "residual": True, "rectify": True}
    assert torch.autograd.gradcheck(lambda *t: interacting_layer(*t, **settings), inputs)


def test_autocast_computes_in_bfloat16() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 5, requires_grad=True), torch.randn(24, 5, requires_grad=True)
    settings = {"heads": 2, "scale": 0.5, "residual": True, "rectify": True}
    exact = interacting_layer(x, weight, None, **settings)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        rough = interacting_layer(x, weight, None, **settings)  # type: ignore[arg-type]
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)
    (gradient,) = torch.autograd.grad(rough.sum(), weight)
    (expected,) = torch.autograd.grad(exact.sum(), weight)
    assert gradient.dtype == torch.float32
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_dropout_drops_attention() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(50, 4, 5), torch.randn(24, 5)
    settings = {"heads": 2, "scale": 0.5, "residual": False, "rectify": False}
    whole = interacting_layer(x, weight[:18], None, **settings)  # type: ignore[arg-type]
    dropped = interacting_layer(x, weight[:18], None, dropout=0.9, **settings)  # type: ignore[arg-type]
    assert (dropped == 0).float().mean() > (whole == 0).float().mean() + 0.2
