"""The Triton kernels of short causal filters, on a GPU or interpreted; fresh memory is NaN."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_transforms, assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import causal_conv1d
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def draw(batch: int, length: int, width: int, taps: int) -> list[Tensor]:
    """x, weight, bias, state."""
    torch.manual_seed(length)
    sizes = (batch, length, width), (width, taps), (width,), (batch, taps - 1, width)
    return [torch.randn(*size, device=DEVICE) for size in sizes]


def runner(
    backend: str, bias: bool = True, state: bool = True, activation: str | None = "silu"
) -> Callable[..., Any]:
    def run(x: Tensor, weight: Tensor, *rest: Tensor) -> tuple[Tensor]:
        given = list(rest)
        shift = given.pop(0) if bias else None
        before = given.pop(0) if state else None
        return (causal_conv1d(x, weight, shift, activation=activation, state=before, backend=backend),)

    return run


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    ("length", "taps"), [(1, 2), (1, 4), (2, 3), (7, 2), (7, 16), (63, 4), (65, 2), (65, 4)]
)
def test_filters(length: int, taps: int, activation: str | None) -> None:
    run, plain = (runner(name, activation=activation) for name in ("triton", "reference"))
    assert_within_budget(run, plain, draw(2, length, 35 if length < 10 else 19, taps))


@pytest.mark.parametrize(("bias", "state"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_optional_inputs(bias: bool, state: bool, activation: str | None) -> None:
    every = draw(1, 35, 16, 4)
    given = [one for one, wanted in zip(every, (True, True, bias, state), strict=True) if wanted]
    run, plain = (runner(name, bias, state, activation) for name in ("triton", "reference"))
    assert_within_budget(run, plain, given)


def test_one_tap_has_no_state() -> None:
    run, plain = (runner(name) for name in ("triton", "reference"))
    assert_within_budget(run, plain, draw(2, 9, 5, 1))
    assert causal_conv1d(*draw(2, 0, 5, 2)[:2], backend="triton").shape == (2, 0, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    leaves = [one.to(dtype).requires_grad_() for one in draw(2, 40, 10, 4)]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    (out,), (want,) = runner("triton")(*leaves), runner("reference")(*exact)
    weights = torch.randn_like(want).to(dtype)
    found = [out, *torch.autograd.grad(out, leaves, weights)]
    truth = [want, *torch.autograd.grad(want, exact, weights.double())]
    for one, other in zip(found, truth, strict=True):
        assert one.dtype == dtype
        assert distance(one, other) < 2 * torch.finfo(dtype).eps


def test_strides_and_mixed_dtypes() -> None:
    x, weight, bias, state = draw(2, 20, 6, 4)
    apart = x.mT.contiguous().mT, weight.t().contiguous().t(), bias, state.mT.contiguous().mT
    found, want = runner("triton")(*apart)[0], runner("reference")(x, weight, bias, state)[0]
    torch.testing.assert_close(found, want)
    mixed = causal_conv1d(x.half(), weight, backend="triton")
    assert mixed.dtype == causal_conv1d(x.half(), weight, backend="torch").dtype == torch.float32


def test_compiles_exports_and_checkpoints() -> None:
    from graphrec.kernels.conv.causal_triton import tile_causal_conv1d

    leaves = [one.requires_grad_() for one in draw(1, 9, 5, 4)]
    for silu in (False, True):
        torch.library.opcheck(tile_causal_conv1d.registered, (*leaves, silu))
        torch.library.opcheck(tile_causal_conv1d.registered, (*leaves[:2], None, None, silu))

    class Layer(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            return runner("triton")(*given)[0].sin()  # type: ignore[no-any-return]

    assert_transforms(Layer(), leaves)


def test_long_filters_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 16, not 17"):
        causal_conv1d(*draw(1, 3, 2, 17)[:2], backend="triton")
