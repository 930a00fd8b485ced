"""The dropout of this package does what torch's does."""

from __future__ import annotations

import pytest
import torch

from graphrec.training.dropout import dropout


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("shape", [(400, 500), (3, 5)])
def test_shares_scales_and_gradients(share: float, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    y = dropout(x, share)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.detach())  # what is kept is scaled, what is dropped gets nothing
    kept = y[y > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - share)), rtol=1e-4, atol=0)
    if y.numel() > 1000:
        assert abs(float((y == 0).float().mean()) - share) < 0.005


def test_elements_are_dropped_independently() -> None:
    """One draw of 64 bits decides on four elements: neighbours must not know of each other."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(100_000, 4), 0.5) > 0).double()
    agree = torch.corrcoef(kept.T)
    assert float((agree - torch.eye(4)).abs().max()) < 0.02
    assert kept.mean(0).sub(0.5).abs().max() < 0.01


def test_seeds_repeat_and_passes_differ() -> None:
    x, found = torch.ones(100, 100), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append([dropout(x, 0.5), dropout(x, 0.5)])
    assert found[0][0].equal(found[1][0])
    assert not found[0][0].equal(found[0][1])


def test_nothing_and_everything() -> None:
    x = torch.randn(100, 100)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    for share in (1.0, 1 - 1e-9):
        assert dropout(x, share).eq(0).all()
    assert dropout(x, 1e-9).equal(x)
    assert dropout(x.double(), 0.5).dtype == torch.float64
