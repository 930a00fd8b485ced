"""Heads of a packed projection: the same as unbinding it, also backwards, also where attention joins them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget
from torch import Tensor

from graphrec.kernels import RelativeBias, attention, split_heads
from graphrec.kernels.attention import core
from graphrec.kernels.attention.heads import joined
from graphrec.kernels.patterns import Full, Neighborhood, Pattern, Windows

PATTERNS = [
    (Windows((8, 12), 4), 96),
    (Windows((8, 8), 4, shift=2, border="-100"), 64),
    (Windows((6, 8), (3, 2), order="grid"), 48),
    (Windows((7, 7), 7), 49),
    (Neighborhood((7, 9), 3), 63),
    (Full(), 20),
]
SOME = pytest.mark.parametrize(("pattern", "length"), PATTERNS, ids=lambda one: repr(one))


def unbound(x: Tensor, heads: int, parts: int = 3) -> tuple[Tensor, ...]:
    return x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def draw(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(sum(size)))


def attended(split: Callable[..., tuple[Tensor, ...]], x: Tensor, pattern: Pattern) -> list[Tensor]:
    """Output and gradient of attention to the parts of a projection."""
    x = x.detach().requires_grad_()
    out = attention(*split(x, 2), pattern)
    return [out, *torch.autograd.grad(out, x, draw(*out.shape, dtype=x.dtype))]


@SOME
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_is_that_of_unbound_parts(pattern: Pattern, length: int, batch: int) -> None:
    x = draw(batch, length, 3 * 2 * 5)
    torch.testing.assert_close(attended(split_heads, x, pattern), attended(unbound, x, pattern))


@SOME
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("slow", [True, False])
def test_half_precision_keeps_the_budget(
    pattern: Pattern, length: int, dtype: torch.dtype, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_SLOW_TYPES", (dtype,) if slow else ())
    x = draw(2, length, 3 * 2 * 8).to(dtype)
    hidden = ~pattern.mask(length, length)

    def plain(x: Tensor) -> tuple[Tensor]:
        q, k, v = unbound(x, 2)
        return ((q * 8**-0.5 @ k.mT).masked_fill(hidden, -torch.inf).softmax(-1) @ v,)

    if not isinstance(pattern, Windows) or pattern.border == "mask":
        assert_within_budget(lambda x: (attention(*split_heads(x, 2), pattern),), plain, [x], dtype)
    found = attended(split_heads, x, pattern)
    assert [one.dtype for one in found] == [dtype, dtype]


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_gradients_of_some_parts_alone(parts: int) -> None:
    x = draw(2, 5, parts * 6).requires_grad_()
    for place in range(parts):
        found, want = (
            torch.autograd.grad((cut(x, 3, parts)[place] ** 2).sum(), x) for cut in (split_heads, unbound)
        )
        torch.testing.assert_close(found, want)


def test_gradients_that_lie_side_by_side_are_not_copied() -> None:
    whole = draw(2, 5, 3 * 6)
    parts = unbound(whole, 3)
    found = joined(parts)
    assert found is not None
    assert found.data_ptr() == whole.data_ptr()
    torch.testing.assert_close(found.flatten(2), whole)
    x = torch.zeros_like(whole, requires_grad=True)
    (grad,) = torch.autograd.grad(split_heads(x, 3), x, parts)
    assert grad.data_ptr() == whole.data_ptr()


@pytest.mark.parametrize(
    "parts",
    [
        lambda x: unbound(x, 3)[::-1],
        lambda x: unbound(x, 3)[:1] * 3,
        lambda x: [one.clone() for one in unbound(x, 3)],
        lambda x: unbound(x[:, :, :12].contiguous(), 3, 2) + unbound(x, 3)[2:],
        lambda x: [one[:, :, ::2] for one in unbound(x, 3)],
        lambda x: [one.transpose(1, 2) for one in unbound(x, 3)],
    ],
)
def test_parts_that_do_not_lie_side_by_side_are_not_joined(
    parts: Callable[[Tensor], list[Tensor]],
) -> None:
    assert joined(parts(draw(2, 6, 18))) is None


def test_parts_keep_their_own_gradients_and_hooks() -> None:
    def run(cut: Callable[..., tuple[Tensor, ...]]) -> list[Tensor | None]:
        x = draw(1, 16, 3 * 8).requires_grad_()
        q, k, v = cut(x, 2)
        out = attention(q, k, v, Windows((4, 4), 2)).square().sum()
        (of_v,) = torch.autograd.grad(out, v, retain_graph=True)
        q.retain_grad()
        k.register_hook(lambda grad: 2 * grad)
        out.backward()
        return [of_v, q.grad, x.grad]

    torch.testing.assert_close(run(split_heads), run(unbound))


def test_a_part_used_twice_sums_its_gradients() -> None:
    x = draw(1, 16, 3 * 8).requires_grad_()

    def run(cut: Callable[..., tuple[Tensor, ...]]) -> Tensor:
        q, k, v = cut(x, 2)
        return torch.autograd.grad((attention(q, k, v, Windows((4, 4), 2)) * v + q.exp()).sum(), x)[0]

    torch.testing.assert_close(run(split_heads), run(unbound))


@pytest.mark.parametrize("table", [True, False])
def test_second_derivatives(table: bool) -> None:
    x, bias = draw(1, 16, 3 * 4).requires_grad_(), draw(2, 9).requires_grad_()

    def run(x: Tensor, bias: Tensor) -> Tensor:
        given = RelativeBias(bias, (2, 2)) if table else None
        return attention(*split_heads(x, 2), Windows((4, 4), 2), bias=given)

    inputs = (x, bias if table else bias.detach())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("size", [(2, 12), (2, 3, 13)])
def test_says_what_does_not_divide(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"packed of shape .* multiple of parts \* heads = 6"):
        split_heads(torch.zeros(size), 2)


@SOME
@pytest.mark.parametrize("slow", [True, False])
def test_autocast_around_both_passes(
    pattern: Pattern, length: int, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "_SLOW_TYPES", (torch.bfloat16,) if slow else ())
    x, weight = draw(2, length, 8).float(), draw(48, 8).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*split_heads(torch.nn.functional.linear(x, weight), 2), pattern)
        (found,) = torch.autograd.grad(out.float().square().sum(), weight)
    assert out.dtype == torch.bfloat16
    exact = attention(*split_heads(torch.nn.functional.linear(x, weight), 2), pattern)
    (want,) = torch.autograd.grad(exact.square().sum(), weight)
    assert float((found - want).norm()) < 0.05 * float(want.norm())
