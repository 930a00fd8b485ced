"""FCN's cross layer in blocks of rows against the same layer of torch operations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from graphrec.ctr import cross_blocks, fcn
from graphrec.ctr.fcn import CrossLayer

ROWS, WIDTH = 50, 12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows of one head in a block, and a last block that is smaller; no batch is too small."""
    monkeypatch.setattr(cross_blocks, "_BLOCK_FLOATS", 7 * WIDTH)
    monkeypatch.setattr(cross_blocks, "_LEAST", 1)


def layer(heads: int, share: float = 0.0) -> CrossLayer:
    torch.manual_seed(0)
    made = CrossLayer(WIDTH, heads, batch_norm=True, layer_norm=True, dropout=share).double()
    for one in made.parameters():
        nn.init.normal_(one)
    return made


def inputs(heads: int) -> tuple[Tensor, Tensor]:
    """x whose mean is not zero, and another factor."""
    x, factor = torch.randn(2, ROWS, heads, WIDTH, dtype=torch.float64).add_(0.5)
    return x.requires_grad_(), factor.requires_grad_()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("exponential", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_equals_torch_operations(
    heads: int, exponential: bool, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = layer(heads)
    theirs = copy.deepcopy(ours)
    x, factor = inputs(heads)
    if transposed:
        x = x.detach().mT.contiguous().mT.requires_grad_()
    grad = torch.randn(x.shape, dtype=torch.float64)
    found = []
    for one in (ours, theirs):
        out = one(x, x if exponential else factor)
        wanted = [x, *([] if exponential else [factor]), *one.parameters()]
        found.append([out, *torch.autograd.grad(out, wanted, grad), *one.buffers()])
        monkeypatch.setattr(fcn, "takes", lambda *_: False)
    assert "CrossBlocks" in found[0][0].grad_fn.name()
    assert "CrossBlocks" not in found[1][0].grad_fn.name()
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_dropped_numbers_are_zero_and_give_no_gradient() -> None:
    share = 0.25
    dropping, whole = layer(1, share), layer(1)
    x = torch.randn(2000, 1, WIDTH, dtype=torch.float64)
    bias = dropping.bias
    out, full = dropping(x, x), whole(x, x)
    kept = out != 0
    assert (~kept).double().mean().item() == pytest.approx(share, abs=0.01)
    torch.testing.assert_close(out[kept], full[kept] / (1 - share), rtol=1e-4, atol=0)
    (grad,) = torch.autograd.grad(out.sum(), bias)
    torch.testing.assert_close(grad, (x * kept).sum((0, 1)) / (1 - share), rtol=1e-4, atol=1e-9)


def test_all_dropped() -> None:
    x, factor = inputs(1)
    out = layer(1, 1.0)(x, factor)
    assert out.eq(0).all()
    assert all(one.eq(0).all() for one in torch.autograd.grad(out.sum(), [x, factor]))


def test_what_it_leaves_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = inputs(1)
    weight = layer(1).linear.weight
    assert cross_blocks.takes(x, weight)
    with monkeypatch.context() as patch:
        patch.setattr(cross_blocks, "_LEAST", x.numel() + 1)
        assert not cross_blocks.takes(x, weight)
    assert not cross_blocks.takes(x.float(), weight)
    assert not cross_blocks.takes(x.bfloat16(), weight.bfloat16())
    assert not cross_blocks.takes(x.to("meta"), weight)
    with torch.no_grad():
        assert not cross_blocks.takes(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not cross_blocks.takes(x, weight)
    one = layer(1).eval()
    assert "CrossBlocks" not in one(x, x).grad_fn.name()
