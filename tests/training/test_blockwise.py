"""Block-by-block training gives the loss and the gradients of the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graphrec.training.blockwise import blockwise_sum


@pytest.mark.parametrize("rows", [1, 7, 20])
@pytest.mark.parametrize("block", [1, 6, 7, 64])
def test_loss_and_gradients_do_not_depend_on_the_block(rows: int, block: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 1)).double()
    x = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(rows, 1, dtype=torch.float64)

    def loss(x: Tensor, target: Tensor) -> Tensor:
        return (model(x) - target).square().sum() / rows

    wanted = [x, *model.parameters()]
    whole = loss(x, target)
    expected = torch.autograd.grad(3 * whole, wanted)
    blocked = blockwise_sum(loss, (x, target), list(model.parameters()), block)
    found = torch.autograd.grad(3 * blocked, wanted)
    assert blocked.item() == pytest.approx(whole.item(), rel=1e-6)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_parameter_that_is_not_used_gets_no_gradient() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    x = torch.randn(4, 3)
    blockwise_sum(lambda x: (x * used).sum(), (x,), [used, unused], 2).backward()
    torch.testing.assert_close(used.grad, x.sum(0))
    assert unused.grad is None
