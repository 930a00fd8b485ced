"""Attention of few to few on a CPU in evaluation, where most questions are left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphrec.kernels import attention
from graphrec.kernels.attention.dense import attend_all
from graphrec.kernels.attention.quick import small_attention
from graphrec.kernels.attention.watching import watched_attention
from graphrec.kernels.patterns import (
    Causal,
    FromStart,
    KeyPadding,
    Pattern,
    PerHead,
    Tokens,
    Window,
    Windows,
)


def drawn(size: tuple[int, int, int, int], keys: int, width: int, last: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values; ``last``: with positions side by side, as convolutions leave them."""
    torch.manual_seed(0)
    batch, heads, length, dim = size
    shapes = (length, dim), (keys, dim), (keys, width)
    if last:
        return tuple(torch.randn(batch, heads, *one[::-1]).mT for one in shapes)
    return tuple(torch.randn(batch, heads, *one) for one in shapes)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("size", "keys", "width"), [((2, 3, 9, 8), 9, 8), ((1, 1, 49, 16), 49, 64), ((300, 2, 16, 6), 12, 6)]
)
@pytest.mark.parametrize("bias", [None, (1, 1), (2, 3)])
@torch.no_grad()
def test_equals_the_formula(
    size: tuple[int, int, int, int], keys: int, width: int, last: bool, bias: tuple[int, int] | None
) -> None:
    q, k, v = drawn(size, keys, width, last)
    shape = (1 if bias is None or bias[0] == 1 else size[0], 1 if bias is None or bias[1] == 1 else size[1])
    added = None if bias is None else torch.randn(*shape, size[2], keys)
    for scale in (None, 0.7):
        mine = small_attention(q, k, v, added, scale)
        assert mine is not None
        assert torch.equal(attention(q, k, v, bias=added, scale=scale), mine)
        wanted = attention(q, k, v, bias=added, scale=scale, backend="reference")
        torch.testing.assert_close(mine, wanted, atol=2e-6, rtol=2e-5)


def test_everything_else_goes_the_long_way() -> None:
    q, k, v = drawn((1, 2, 9, 8), 9, 8, last=False)
    assert small_attention(q.clone().requires_grad_(), k, v, None, None) is None  # narrow heads in training
    hidden = torch.zeros(1, 1, 9, 9)
    hidden[0, 0, 3] = -torch.inf
    with torch.no_grad():
        for one in ((q[:, :1], k, v), (q, k[..., :4], v), (q, k, v[:, :, :5]), (q[0], k[0], v[0])):
            assert small_attention(*one, None, None) is None
        for many in (q.double(), k.double(), v.double()), (q.bfloat16(), k, v.bfloat16()):
            assert small_attention(*many, None, None) is None
        assert small_attention(q, k, v, torch.zeros(1, 1, 9, 8), None) is None
        assert small_attention(q, k, v, hidden, None) is None
        assert attention(q, k, v, bias=hidden)[0, :, 3].eq(0).all()
        wide = torch.zeros(1, 8, 300, 64)
        assert small_attention(wide, wide, wide[..., :48], None, None) is None
        with pytest.raises(ValueError, match="bias of shape"):
            attention(q, k, v, bias=torch.zeros(1, 1, 9, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_shared_heads_and_any_length_go_to_fused_attention(dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 70, 32), torch.randn(2, 2, 90, 32), torch.randn(2, 2, 90, 32)
    bias = torch.randn(1, 4, 70, 90, dtype=dtype) if biased else None
    given = [one.to(dtype) for one in (q, k, v)]
    mine = small_attention(*given, bias, None)
    assert mine is not None
    wide = [one.double() for one in given]
    wanted = attention(*wide, bias=None if bias is None else bias.double(), backend="reference")
    assert (mine - wanted).norm() < (1e-5 if dtype == torch.float32 else 1e-2) * wanted.norm()


@torch.no_grad()
def test_watchers_see_the_call() -> None:
    q, k, v = drawn((1, 2, 9, 8), 9, 8, last=False)
    seen = []
    with watched_attention(seen.append):
        attention(q, k, v)
    assert len(seen) == 1


@pytest.mark.parametrize(("batch", "length"), [(2, 9), (300, 16)])
@pytest.mark.parametrize("heads", [None, 1, 2])
def test_narrow_heads_in_training(batch: int, length: int, heads: int | None) -> None:
    """Few pairs as plain products, more of them with the gradient that windows have."""
    q, k, v = (one.double().requires_grad_() for one in drawn((batch, 2, length, 6), length, 5, last=False))
    bias = None if heads is None else torch.randn(1, heads, length, length, dtype=torch.float64)
    given = [q, k, v] if bias is None else [q, k, v, bias.requires_grad_()]
    mine, wanted = (attention(q, k, v, bias=bias, backend=one) for one in ("torch", "reference"))
    torch.testing.assert_close(mine, wanted)
    grad = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(mine, given, grad), torch.autograd.grad(wanted, given, grad), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_values_without_a_width_are_refused_by_name() -> None:
    q = torch.randn(1, 2, 4, 8)
    with torch.no_grad(), pytest.raises(ValueError, match="v"):
        attention(q, q, q[..., 0])


PATTERNS: list[tuple[str, Pattern]] = [
    ("static", Window(2, 3)),
    ("folding", Windows((4, 5), 4)),
    ("penalty", Windows((4, 5), (4, 5), shift=2, border="-100")),
    ("padding", KeyPadding(torch.arange(20) < torch.tensor([[20], [7]]))),
    ("lists", Tokens(torch.randint(0, 20, (2, 1, 20, 3)))),
    ("heads", PerHead(Causal(), Window(1, 1))),
    ("nothing", FromStart(Window(2, 0), torch.tensor([0, 9]))),
]


@pytest.mark.parametrize("copies", [1, 600])
@pytest.mark.parametrize("pattern", [one for _, one in PATTERNS], ids=[name for name, _ in PATTERNS])
@pytest.mark.parametrize("biased", [False, True])
def test_few_pairs_are_masked_and_many_grouped(pattern: Pattern, copies: int, biased: bool) -> None:
    """Outputs, gradients and their gradients, on either side of where groups begin to pay."""
    torch.manual_seed(0)
    length = 20
    heads = 2 if pattern.heads == 2 else 2 * copies
    many = heads, heads // 2 if biased else heads, heads // 2 if biased else heads
    given = [torch.randn(2, one, length, 4, dtype=torch.float64, requires_grad=True) for one in many]
    bias = torch.randn(1, 1, length, length, dtype=torch.float64) if biased else None

    def run(backend: str) -> list[Tensor]:
        out = attention(*given, pattern, bias=bias, backend=backend)
        first = torch.autograd.grad(out.square().sum(), given, create_graph=True)
        total = torch.stack([one.square().sum() for one in first]).sum()
        return [out, *first, *torch.autograd.grad(total, given)]

    for mine, wanted in zip(run("torch"), run("reference"), strict=True):
        torch.testing.assert_close(mine, wanted)
    with torch.no_grad():
        quiet = attention(*given, pattern, bias=bias)
    torch.testing.assert_close(quiet, attention(*given, pattern, bias=bias, backend="reference").detach())


@pytest.mark.parametrize("pattern", [one for _, one in PATTERNS], ids=[name for name, _ in PATTERNS])
def test_all_pairs_keep_penalties_and_queries_that_see_nothing(pattern: Pattern) -> None:
    """However few the pairs, without a gradient and with."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 20, 4, dtype=torch.float64)
    wanted = attention(q, k, v, pattern, backend="reference")
    for learned in (q, q.clone().requires_grad_()):
        found = attend_all(learned, k, v, pattern, None, 0.5, False, None)[0]
        torch.testing.assert_close(found.detach(), wanted)
