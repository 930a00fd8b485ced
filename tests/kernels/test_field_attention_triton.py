"""The Triton kernels of attention among fields, on a GPU or interpreted; fresh memory is NaN."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget, distance, gradients
from torch import Tensor

from graphrec.kernels import field_attention, interacting_layer
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def operands(size: tuple[int, ...]) -> list[Tensor]:
    """q, k and v as views of (B, F, H, D), the way a projection gives them."""
    torch.manual_seed(0)
    batch, heads, fields, dim, v_dim = size
    return [
        torch.randn(batch, fields, heads, one, device=DEVICE).transpose(1, 2) for one in (dim, dim, v_dim)
    ]


def formula(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return ((q * 0.7 @ k.mT).softmax(-1) @ v,)


def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (field_attention(q, k, v, scale=0.7, backend="triton"),)


SIZES = [
    (1, 1, 1, 1, 1),
    (3, 2, 2, 6, 10),
    (5, 2, 39, 32, 32),
    (3, 1, 7, 16, 53),
    (2, 1, 49, 20, 30),
    (1, 2, 63, 64, 77),
    (1, 1, 65, 60, 64),
    (0, 2, 5, 4, 4),
    (2, 2, 0, 4, 4),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_field_attention(size: tuple[int, ...]) -> None:
    inputs = operands(size)
    assert_within_budget(attend, formula, inputs)
    assert_within_budget(attend, formula, [one.contiguous() for one in inputs])


def test_strides_need_no_copy() -> None:
    torch.manual_seed(0)
    q = torch.randn(20, 3, 2, 8, device=DEVICE).permute(1, 2, 0, 3)
    k = torch.randn(8, 3, 2, 20, device=DEVICE).permute(1, 2, 3, 0)
    v = torch.randn(3, 2, 20, 12, device=DEVICE)[..., ::2]
    assert_within_budget(attend, formula, [q, k, v])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    inputs = [one.to(dtype) for one in operands((3, 2, 39, 32, 32))]
    found, truth = gradients(attend, inputs, dtype), gradients(formula, inputs, torch.float64)
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 4 * torch.finfo(dtype).eps


def composed(residual: bool, rectify: bool, backend: str) -> Callable[..., tuple[Tensor]]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor]:
        settings = {"heads": 2, "scale": 0.7, "residual": residual, "rectify": rectify}
        return (interacting_layer(x, weight, bias, backend=backend, **settings),)

    return run


@pytest.mark.parametrize(("residual", "rectify", "biased"), list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("size", [(1, 4, 5, 6), (3, 39, 16, 20)], ids=str)
def test_interacting_layer(size: tuple[int, ...], residual: bool, rectify: bool, biased: bool) -> None:
    """The seed leaves no sum so near to zero that float32 puts a ReLU on the other side."""
    rows, fields, width, total = size
    torch.manual_seed(0)
    weight = torch.randn((3 + residual) * total, width, device=DEVICE) * width**-0.5
    inputs = [torch.randn(rows, fields, width, device=DEVICE), weight]
    inputs += [torch.randn(len(weight), device=DEVICE)] if biased else []
    run, plain = (composed(residual, rectify, backend) for backend in ("triton", "reference"))
    assert_within_budget(run, plain, inputs)


def test_operators_are_registered() -> None:
    """opcheck: schema, fake tensors, autograd and tracing of the operators themselves."""
    from graphrec.kernels.interaction.triton import field_tiles, interacting_tiles

    q, k, v = (one.requires_grad_() for one in operands((2, 2, 5, 4, 6)))
    torch.library.opcheck(field_tiles.registered, (q, k, v, 0.5))
    projected = torch.randn(2, 5, 16, device=DEVICE, requires_grad=True)
    torch.library.opcheck(interacting_tiles.registered, (projected, 2, 0.5, True, True))


def test_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    x, weight = (torch.randn(*size, device=DEVICE, requires_grad=True) for size in ((2, 5, 6), (32, 6)))

    def run(x: Tensor, weight: Tensor) -> Tensor:
        out = interacting_layer(x, weight, heads=2, backend="triton").unflatten(-1, (2, 4)).transpose(1, 2)
        return field_attention(out, out, out, backend="triton").sin()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found, want = compiled(x, weight), run(x, weight)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        *(torch.autograd.grad(out.sum(), (x, weight)) for out in (found, want)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_what_one_program_cannot_hold_is_refused() -> None:
    x = torch.zeros(1, 1, 129, 8, device=DEVICE)
    with pytest.raises(ValueError, match="up to 128 fields and dimensions, not 129 and 8"):
        field_attention(x, x, x, backend="triton")
    with pytest.raises(ValueError, match="drops no attention weights"):
        interacting_layer(
            x[0, :, :9], torch.zeros(8, 8, device=DEVICE), heads=2, dropout=0.1, backend="triton"
        )
