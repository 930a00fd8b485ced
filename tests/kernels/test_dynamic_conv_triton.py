"""The Triton kernels of dynamic convolution, on a GPU or interpreted, against the float64 formula.

Fresh memory is NaN. The interpreter takes some 10 ms per tap and tile, so cases are small.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import dynamic_conv2d, outlook
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def compare(x: Tensor, weight: Tensor, **options: Any) -> None:
    """Triton against the reference in float64, in the budget of the reference in float32."""

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        def call(x: Tensor, w: Tensor) -> tuple[Tensor]:
            name = "reference" if x.dtype == torch.float64 else backend
            return (dynamic_conv2d(x, w, **options, backend=name),)

        return call

    assert_within_budget(run("triton"), run("reference"), [x.to(DEVICE), weight.to(DEVICE)])


CASES: list[tuple[tuple[int, int], tuple[int, int], dict[str, Any]]] = [
    ((7, 9), (7, 9), {"kernel_size": 3}),
    ((7, 9), (4, 5), {"kernel_size": 3, "stride": 2}),
    ((7, 9), (7, 9), {"kernel_size": (2, 5), "dilation": (3, 2)}),
    ((7, 9), (2, 9), {"kernel_size": (4, 1), "padding": 0, "stride": (2, 1), "interleaved": True}),
    ((7, 9), (7, 9), {"kernel_size": 3, "border": "shift"}),
    ((7, 9), (7, 9), {"kernel_size": (3, 2), "border": "shift", "dilation": (2, 3)}),
    ((1, 1), (1, 1), {"kernel_size": 3}),
    ((20, 17), (20, 17), {"kernel_size": 1}),
]


@pytest.mark.parametrize(("size", "out", "options"), CASES, ids=repr)
@pytest.mark.parametrize("channels", [(1, 1), (2, 5)])
def test_geometries(
    size: tuple[int, int], out: tuple[int, int], options: dict[str, Any], channels: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    kernel = options["kernel_size"]
    taps = kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
    groups, members = channels
    compare(torch.randn(groups, groups * members, *size), torch.randn(groups, groups, taps, *out), **options)


def test_many_channels_per_group() -> None:
    torch.manual_seed(0)
    compare(torch.randn(1, 37, 3, 4), torch.randn(1, 1, 4, 3, 4), kernel_size=2)


def test_layouts_need_no_copy() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 5, 6, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(1, 5, 6, 2, 9, device=DEVICE).permute(0, 3, 4, 1, 2).requires_grad_()
    found = dynamic_conv2d(x, weight, kernel_size=3, backend="triton")
    want = dynamic_conv2d(x, weight, kernel_size=3, backend="reference")
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        *(torch.autograd.grad(out.sin().sum(), (x, weight)) for out in (found, want)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_second_derivatives() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 4, device=DEVICE, requires_grad=True)
    weight = torch.randn(1, 1, 4, 3, 4, device=DEVICE, requires_grad=True)
    found = []
    for backend in ("triton", "reference"):
        out = dynamic_conv2d(x, weight, kernel_size=2, backend=backend)
        first = torch.autograd.grad(out.sin().sum(), (x, weight), create_graph=True)
        found.append(torch.autograd.grad(sum(one.square().sum() for one in first), (x, weight)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("stride", [1, 2])
def test_outlook(stride: int) -> None:
    torch.manual_seed(0)
    size = -(-5 // stride), -(-6 // stride)
    value, weight = torch.randn(1, 4, 5, 6), torch.randn(1, 2, 9, 9, *size)

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        def call(x: Tensor, w: Tensor) -> tuple[Tensor]:
            name = "reference" if x.dtype == torch.float64 else backend
            return (outlook(x, w, kernel_size=3, stride=stride, backend=name),)

        return call

    assert_within_budget(run("triton"), run("reference"), [value.to(DEVICE), weight.to(DEVICE)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    torch.manual_seed(0)
    x = torch.randn(1, 4, 5, 6, device=DEVICE).to(dtype).requires_grad_()
    weight = torch.randn(1, 2, 9, 5, 6, device=DEVICE).to(dtype).requires_grad_()
    exact = [one.detach().double().requires_grad_() for one in (x, weight)]
    out = dynamic_conv2d(x, weight, kernel_size=3, backend="triton")
    want = dynamic_conv2d(*exact, kernel_size=3, backend="reference")
    weights = torch.randn(want.shape, device=DEVICE, dtype=torch.float64)
    found = [out, *torch.autograd.grad(out, (x, weight), weights.to(dtype))]
    truth = [want, *torch.autograd.grad(want, exact, weights)]
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 2 * torch.finfo(dtype).eps


def test_operators_are_registered() -> None:
    from graphrec.kernels.conv import dynamic_registered

    x = torch.randn(1, 4, 4, 5, device=DEVICE, requires_grad=True)
    weight = torch.randn(1, 2, 9, 2, 3, device=DEVICE, requires_grad=True)
    geometry = [3, 3, 2, 2, 1, 1, 1, 1]
    torch.library.opcheck(
        dynamic_registered.convolve.registered, (x, weight, geometry, "zero", False, "triton")
    )


def test_compiles_into_one_graph() -> None:
    x = torch.randn(1, 4, 5, 6, device=DEVICE, requires_grad=True)
    weight = torch.randn(1, 2, 9, 5, 6, device=DEVICE, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return dynamic_conv2d(x, weight, kernel_size=3, border="shift", backend="triton").sin()

    found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(x, weight), run(x, weight)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        *(torch.autograd.grad(out.sum(), (x, weight)) for out in (found, want)), strict=True
    ):
        torch.testing.assert_close(one, other)
