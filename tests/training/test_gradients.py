import pytest
import torch
from torch import nn

from graphrec.training.gradients import clip_gradients


def gradients(sparse):
    """Parameters whose first gradient is of rows or dense; ids repeat, so rows are summed."""
    torch.manual_seed(0)
    embedding, linear = nn.Embedding(20, 3, sparse=sparse), nn.Linear(3, 2)
    (linear(embedding(torch.tensor([1, 5, 1, 7, 5]))).square().sum() * 10).backward()
    unused = nn.Parameter(torch.ones(2))
    return [embedding.weight, *linear.parameters(), unused]


def test_row_and_dense_gradients_share_one_norm():
    rows, dense = gradients(True), gradients(False)
    expected = float(nn.utils.clip_grad_norm_(dense, 0.5))
    assert expected > 0.5
    assert clip_gradients(rows, 0.5) == pytest.approx(expected, rel=1e-6)
    for a, b in zip(rows, dense, strict=True):
        if b.grad is None:
            assert a.grad is None
        else:
            torch.testing.assert_close(a.grad.to_dense(), b.grad)


def test_small_gradients_stay():
    params = gradients(True)
    before = [p.grad.to_dense().clone() for p in params[:-1]]
    clip_gradients(params, 1e9)
    assert all(torch.equal(p.grad.to_dense(), g) for p, g in zip(params, before, strict=False))


def test_non_finite_norm_is_returned_and_changes_nothing():
    params = gradients(False)
    params[0].grad[0, 0] = float("nan")
    before = params[1].grad.clone()
    assert clip_gradients(params, 0.5) != clip_gradients(params, 0.5)  # NaN
    assert torch.equal(params[1].grad, before)


def test_no_gradients():
    assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0) == 0.0


def test_large_gradients_are_not_copied_side_by_side(monkeypatch):
    params = gradients(False)
    expected = clip_gradients(params, 1e9)
    monkeypatch.setattr("graphrec.training.gradients._FEW", 3)
    assert clip_gradients(params, 1e9) == pytest.approx(expected, rel=1e-6)
