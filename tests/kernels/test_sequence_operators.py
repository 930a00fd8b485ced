"""Recurrences, short convolutions and field attention against plain float64 forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import attention, causal_conv1d, field_attention, scan, selective_scan

LENGTHS = st.sampled_from([1, 2, 7, 49, 63, 65, 130])


def test_the_past_does_not_see_the_future() -> None:
    a, b, x = torch.rand(1, 20, 3), torch.randn(1, 20, 3), torch.randn(1, 20, 3)
    weight = torch.randn(3, 4)

    def outputs() -> list[Tensor]:
        return [
            scan(a, b)[0, :12],
            causal_conv1d(x, weight)[0, :12],
        ]

    before = outputs()
    for one in (a, b, x):
        one[:, 12:] = 99.0
    for one, other in zip(before, outputs(), strict=True):
        assert torch.equal(one, other)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.booleans(), st.booleans(), st.integers(0, 99))
def test_scan(length: int, reverse: bool, initial: bool, seed: int) -> None:
    torch.manual_seed(seed)
    inputs = [torch.rand(2, length, 3, 2) * 1.2 - 0.1, torch.randn(2, length, 3, 2)]
    if initial:
        inputs.append(torch.randn(2, 3, 2))

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda a, b, *first: (
            scan(a, b, initial=first[0] if first else None, reverse=reverse, backend=backend),
        )

    assert_within_budget(run("torch"), run("reference"), inputs)


def test_scan_by_hand() -> None:
    assert scan(torch.full((1, 3), 2.0), torch.ones(1, 3)).tolist() == [[1, 3, 7]]
    assert scan(torch.full((1, 3), 2.0), torch.ones(1, 3), reverse=True).tolist() == [[7, 3, 1]]
    assert scan(torch.zeros(1, 0, 2), torch.zeros(1, 0, 2)).shape == (1, 0, 2)


def mamba_by_hand(
    u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor, skip: Tensor, gate: Tensor
) -> Tensor:
    """Algorithm 2 of the paper, one step at a time."""
    state, steps = torch.zeros(u.shape[0], *decay.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        state = (delta[:, t, :, None] * decay).exp() * state + delta[:, t, :, None] * read_in[:, t, None] * u[
            :, t, :, None
        ]
        steps.append((state * read_out[:, t, None]).sum(-1) + skip * u[:, t])
    return torch.stack(steps, 1) * F.silu(gate)


@pytest.mark.parametrize("length", [1, 2, 33])
def test_selective_scan(length: int) -> None:
    torch.manual_seed(0)
    inputs = [
        torch.randn(2, length, 4),
        torch.rand(2, length, 4),
        -torch.rand(4, 3) - 0.1,
        torch.randn(2, length, 3),
        torch.randn(2, length, 3),
        torch.randn(4),
        torch.randn(2, length, 4),
    ]

    def run(
        u: Tensor, delta: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor, skip: Tensor, gate: Tensor
    ) -> tuple[Tensor]:
        return (selective_scan(u, delta, decay, read_in, read_out, skip=skip, gate=gate),)

    assert_within_budget(run, lambda *given: (mamba_by_hand(*given),), inputs)


def test_selective_scan_reversed_and_in_halves() -> None:
    torch.manual_seed(0)
    u, delta, decay = torch.randn(1, 20, 4), torch.rand(1, 20, 4), -torch.rand(4, 3)
    read_in, read_out = torch.randn(1, 20, 3), torch.randn(1, 20, 3)
    parts = (u, delta, read_in, read_out)

    def run(part: slice, **options: object) -> tuple[Tensor, Tensor]:
        a, b, c, d = (one[:, part] for one in parts)
        return selective_scan(a, b, decay, c, d, return_state=True, **options)  # type: ignore[call-overload, no-any-return]

    whole, end = run(slice(None))
    first, state = run(slice(0, 7))
    last, final = run(slice(7, None), state=state)
    torch.testing.assert_close(torch.cat([first, last], 1), whole)
    torch.testing.assert_close(final, end)
    back = selective_scan(u, delta, decay, read_in, read_out, reverse=True)
    turned = [one.flip(1) for one in parts]
    torch.testing.assert_close(back, selective_scan(*turned[:2], decay, *turned[2:]).flip(1))


@pytest.mark.parametrize("width", [1, 2, 4, 7])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_causal_conv1d(width: int, activation: str | None) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 9, 5), torch.randn(5, width), torch.randn(5)]

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda x, weight, bias: (
            causal_conv1d(x, weight, bias, activation=activation, backend=backend),
        )

    assert_within_budget(run("torch"), run("reference"), inputs)
    x, weight, bias = inputs
    want = F.conv1d(F.pad(x.mT, (width - 1, 0)), weight.unsqueeze(1), bias, groups=5).mT
    torch.testing.assert_close(run("torch")(*inputs)[0], F.silu(want) if activation else want)
    if width > 1:
        later = (
            causal_conv1d(x[:, 4:], weight, bias, activation=activation, state=x[:, max(0, 5 - width) : 4])
            if width <= 5
            else None
        )
        if later is not None:
            torch.testing.assert_close(later, run("torch")(*inputs)[0][:, 4:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (7, 2, 39, 32), (3, 3, 10, 6)])
def test_field_attention(size: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    batch, heads, fields, dim = size
    inputs = [torch.randn(batch, fields, heads, dim).transpose(1, 2) for _ in range(3)]

    def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        return ((q * 0.7 @ k.mT).softmax(-1) @ v,)

    assert_within_budget(lambda q, k, v: (field_attention(q, k, v, scale=0.7),), plain, inputs, dtype)
    found = field_attention(*inputs, backend="reference")
    torch.testing.assert_close(found, attention(*inputs, backend="reference"))


BIG = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: scan(torch.zeros(1, 2), torch.zeros(1, 3)), r"\(1, 2\) and \(1, 3\)"),
        (
            lambda: scan(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), initial=torch.zeros(1, 2)),
            r"must be \(1, 3\)",
        ),
        (
            lambda: selective_scan(
                *[torch.zeros(1, 2, 3)] * 2, torch.zeros(3, 4), *[torch.zeros(1, 2, 3)] * 2
            ),
            r"read_in of shape \(1, 2, 3\)",
        ),
        (lambda: selective_scan(BIG, BIG, BIG, BIG, BIG), r"u must be \(B, T, D\)"),
        (lambda: causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(4, 2)), r"weight \(D, W\)"),
        (
            lambda: causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(3, 2), activation="gelu"),
            "activation='gelu'",
        ),
        (
            lambda: causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(3, 2), torch.zeros(2)),
            r"bias of shape \(2,\)",
        ),
        (
            lambda: causal_conv1d(torch.zeros(1, 2, 3), torch.zeros(3, 2), state=torch.zeros(1, 2, 3)),
            "state of shape",
        ),
        (lambda: field_attention(BIG, BIG, BIG[:, :, :2]), r"\(1, 2, 2, 4\)"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
