"""A small neighborhood beside keys that everyone sees, in one softmax without gathering."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.kernels import RelativeBias, Source, joint_attention
from graphrec.kernels.attention.beside import takes
from graphrec.kernels.attention.core import emulated
from graphrec.kernels.patterns import Halo, Neighborhood

HALO = Halo((4, 5), 1, 1)


def drawn() -> tuple[Tensor, ...]:
    """Queries, both pairs of keys and values, a table of biases, weights per query, and a bias."""
    torch.manual_seed(0)
    shapes = [(2, 3, 20, 4)] * 3 + [(2, 3, 6, 4)] * 2 + [(3, 9), (2, 3, 20, 9), (1, 3, 20, 6)]
    return tuple(torch.randn(one, dtype=torch.float64, requires_grad=True) for one in shapes)


def sources_of(given: tuple[Tensor, ...], pattern: Halo | Neighborhood = HALO) -> list[Source]:
    _, k, v, other_k, other_v, table, weights, bias = given
    near = Source(k, v, pattern, bias=RelativeBias(table, (2, 2)), plus=RelativeBias(weights, (2, 2)))
    return [near, Source(other_k, other_v, bias=bias)]


def mixed(*given: Tensor, backend: str = "torch") -> Tensor:
    return joint_attention(given[0], sources_of(given), scale=0.7, backend=backend)


def test_equals_the_formula() -> None:
    given = drawn()
    assert takes(given[0], sources_of(given))
    mine, wanted = mixed(*given), mixed(*given, backend="reference")
    torch.testing.assert_close(mine, wanted)
    grad = torch.randn_like(wanted)
    for one, other in zip(*(torch.autograd.grad(out, given, grad) for out in (mine, wanted)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("without", ["bias", "plus"])
def test_without_terms(without: str) -> None:
    given = drawn()
    near, far = sources_of(given)
    sources = [near._replace(**{without: None}), far._replace(bias=None)]
    assert takes(given[0], sources)
    mine, wanted = (joint_attention(given[0], sources, backend=one) for one in ("torch", "reference"))
    torch.testing.assert_close(mine, wanted)


def test_second_derivatives() -> None:
    assert torch.autograd.gradgradcheck(mixed, drawn(), fast_mode=True)


def test_what_it_leaves_to_others() -> None:
    given = drawn()
    near, far = sources_of(given)
    hidden = given[5].detach().masked_fill(torch.arange(9) == 4, -torch.inf)
    for sources in (
        [far, near],
        [near],
        [near._replace(pattern=Halo((4, 5), 1, 1, border="zero")), far],
        [near._replace(pattern=Halo((4, 5), 2, 1)), far],
        [near._replace(pattern=Halo((4, 5), 1, 2), bias=None, plus=None), far],
        [near._replace(pattern=Neighborhood((4, 5), 3)), far],
        [near._replace(bias=RelativeBias(hidden, (2, 2))), far],
        [near._replace(times=near.plus), far],
        [near, far._replace(plus=far.bias)],
    ):
        assert not takes(given[0], sources)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_emulated_types_are_rounded_once(dtype: torch.dtype, cast: bool) -> None:
    if not emulated(dtype):
        pytest.skip("this processor has instructions for the type")
    low = tuple(one.detach().to(dtype).requires_grad_() for one in drawn())
    assert takes(low[0], sources_of(low))
    with torch.autocast("cpu", dtype, enabled=cast):
        mine = mixed(*low)
    high = tuple(one.detach().double().requires_grad_() for one in low)
    wanted = mixed(*high, backend="reference")
    assert mine.dtype == dtype
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.double(), wanted, rtol=0.51 * ulp, atol=1e-5)
    grad = torch.randn_like(mine)
    found = torch.autograd.grad(mine, low, grad)
    for one, other in zip(found, torch.autograd.grad(wanted, high, grad.double()), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0.51 * ulp, atol=ulp / 50)
