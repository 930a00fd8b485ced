"""Regions of one size that see as many regions each: gathered whole by the torch backend."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.kernels import attention, split_heads
from graphrec.kernels.attention import regions as module
from graphrec.kernels.attention.regions import routes_of
from graphrec.kernels.patterns import Regions
from graphrec.kernels.policies import biformer_routing

CPU = torch.device("cpu")


def drawn(packed: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A projection (2, 48, 3 * 4 * 6) with its queries, keys and values, side by side or apart."""
    torch.manual_seed(0)
    x = torch.randn(2, 48, 72, dtype=dtype, requires_grad=True)
    parts = split_heads(x, 4)
    return x, parts if packed else tuple(one.contiguous() for one in parts)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("topk", [1, 3, 8])
def test_equals_the_formula(packed: bool, topk: int) -> None:
    x, (q, k, v) = drawn(packed)
    pattern = biformer_routing(q, k, (6, 8), (3, 2), topk)
    assert routes_of(pattern, CPU) is not None
    mine, wanted = (attention(q, k, v, pattern, scale=0.3, backend=one) for one in ("torch", "reference"))
    torch.testing.assert_close(mine, wanted)
    grad = torch.randn_like(wanted)
    slopes = [torch.autograd.grad(one, x, grad, retain_graph=True)[0] for one in (mine, wanted)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("regions", [1, 5, 64])
def test_pieces_with_and_without_gradients(monkeypatch: pytest.MonkeyPatch, regions: int) -> None:
    """Some regions at a time, with a shorter last piece, and all at once are the same."""
    monkeypatch.setattr(module, "_PIECE", regions * 3 * 6 * 6)
    _, (q, k, v) = drawn(True)
    pattern = biformer_routing(q, k, (6, 8), (3, 2), 3)
    wanted = attention(q, k, v, pattern, backend="reference")
    torch.testing.assert_close(attention(q, k, v, pattern, backend="torch"), wanted)
    with torch.no_grad():
        torch.testing.assert_close(attention(q, k, v, pattern, backend="torch"), wanted)


def test_no_images() -> None:
    none = torch.zeros(0, 4, 48, 6)
    assert biformer_routing(none, none, (6, 8), (3, 2), 3).map.shape == (0, 1, 8, 8)


def test_heads_with_regions_of_their_own_and_shared_keys() -> None:
    _, (q, k, v) = drawn(True)
    scores = torch.rand(2, 4, 8, 8)
    pattern = Regions(
        (6, 8), (3, 2), torch.zeros(scores.shape, dtype=torch.bool).scatter_(3, scores.topk(2).indices, True)
    )
    assert routes_of(pattern, CPU) is not None
    mine, wanted = (attention(q, k[:, :2], v[:, :2], pattern, backend=one) for one in ("torch", "reference"))
    torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype: torch.dtype) -> None:
    x, (q, k, v) = drawn(True, dtype)
    pattern = biformer_routing(q, k, (6, 8), (3, 2), 2)
    mine, wanted = (attention(q, k, v, pattern, backend=one) for one in ("torch", "reference"))
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, wanted, atol=3e-2, rtol=3e-2)
    assert torch.autograd.grad(mine.sum(), x)[0].dtype == dtype


def test_second_derivatives() -> None:
    x = torch.randn(1, 16, 12, dtype=torch.float64, requires_grad=True)
    pattern = biformer_routing(*split_heads(x, 2)[:2], (4, 4), (2, 2), 2)

    def mixed(packed: Tensor) -> Tensor:
        return attention(*split_heads(packed, 2), pattern)

    assert torch.autograd.gradcheck(mixed, x)
    assert torch.autograd.gradgradcheck(mixed, x)


def test_what_is_not_regular_is_planned() -> None:
    eye = torch.eye(8, dtype=torch.bool)
    some = eye.clone()
    some[0, 1] = True
    assert routes_of(Regions((6, 8), (3, 2), some), CPU) is None  # one region sees more
    assert routes_of(Regions((6, 8), (3, 2), eye & False), CPU) is None
    assert routes_of(Regions((5, 8), (3, 2), eye), CPU) is None  # smaller regions at the edge
    assert routes_of(Regions((6, 8), (3, 2), torch.ones(48, 8, dtype=torch.bool)), CPU) is None  # per query
