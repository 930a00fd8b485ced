"""Linear layers on few features compute what torch's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphrec.graph.linears import FEW, Linear


@pytest.mark.parametrize("features", [1, 2, 7, FEW, FEW + 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(30,), (0,), (1,), (4, 5)])
def test_is_torchs_linear(features: int, bias: bool, shape: tuple[int, ...]) -> None:
    """Outputs and all gradients, in batches of any shape."""
    ours, theirs = (one(features, 6, bias=bias, dtype=torch.float64) for one in (Linear, nn.Linear))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*shape, features, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        given = x.clone().requires_grad_()
        out = layer(given)
        found.append((out, *torch.autograd.grad(out.square().sum(), [given, *layer.parameters()])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_takes_other_layouts_and_types() -> None:
    """Rows that do not lie side by side, second derivatives, autocast."""
    layer = Linear(3, 5, dtype=torch.float64)
    x = torch.randn(6, 8, dtype=torch.float64)[:, ::3].requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,))
    narrow = Linear(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert narrow(torch.randn(4, 3)).dtype == torch.bfloat16
    assert narrow.to(torch.bfloat16)(torch.randn(4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_gradient_of_few_features_is_made_the_other_way_round() -> None:
    """torch chooses the order by the weight's layout, so the product has to be with a copy of the weight."""
    x = torch.randn(5, 3)
    out = Linear(3, 4)(x)
    assert out.grad_fn is not None
    factors = [one.name() for one, _ in out.grad_fn.next_functions if one is not None]
    assert any("Clone" in name for name in factors), factors
