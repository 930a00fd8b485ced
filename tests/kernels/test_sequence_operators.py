"""Short convolutions and field attention against plain float64 forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import attention, causal_conv1d, field_attention


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
