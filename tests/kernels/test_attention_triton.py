"""The Triton kernels of attention, on a GPU or interpreted, against the float64 formula; fresh memory is NaN.

The interpreter takes some 10 ms per tile and kernel, so cases are few tiles each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import RelativeBias, attention
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.patterns import (
    BlockLists,
    Blocks,
    Causal,
    Full,
    Global,
    Halo,
    KeyPadding,
    Neighborhood,
    Packed,
    Pattern,
    PerHead,
    Segments,
    Streaming,
    Tokens,
    Window,
    Windows,
    encode,
)

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def runner(pattern: Pattern, backend: str, make: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    def run(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Any:
        name = "reference" if q.dtype == torch.float64 else backend
        found = attention(q, k, v, pattern, bias=make(*rest), backend=name, **options)
        return found if isinstance(found, tuple) else (found,)

    return run


def compare(
    pattern: Pattern,
    q_len: int,
    k_len: int,
    kind: str = "none",
    *,
    batch: int = 1,
    heads: tuple[int, int] = (2, 1),
    dims: tuple[int, int] = (10, 7),
    bias_size: tuple[int, int] = (1, 2),
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> None:
    torch.manual_seed(0)
    sizes = ((heads[0], q_len, dims[0]), (heads[1], k_len, dims[0]), (heads[1], k_len, dims[1]))
    given = [torch.randn(batch, *size, device=DEVICE, dtype=torch.float64) for size in sizes]
    make: Callable[..., Any] = lambda *_: None  # noqa: E731
    if kind == "dense":
        given.append(torch.randn(*bias_size, q_len, k_len, device=DEVICE, dtype=torch.float64))
        make = lambda bias: bias  # noqa: E731
    elif kind == "table":
        window = tuple(far + 1 for far in pattern.extent(q_len, k_len))
        columns = torch.Size(2 * one - 1 for one in window).numel()
        given.append(torch.randn(bias_size[1], columns, device=DEVICE, dtype=torch.float64))
        make = lambda table: RelativeBias(table, window)  # noqa: E731
    run, plain = (runner(pattern, backend, make, **options) for backend in ("triton", "reference"))
    assert_within_budget(run, plain, given, dtype)


def index(high: int, *shape: int) -> Tensor:
    return torch.randint(-1, high, shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


CASES: list[tuple[Pattern, int, int, str, dict[str, Any]]] = [
    (Full(), 7, 65, "none", {"batch": 2, "return_lse": True}),
    (Full(), 65, 2, "dense", {"batch": 2, "bias_size": (2, 1)}),
    (Full(), 20, 20, "dense", {"batch": 3, "bias_size": (1, 1)}),
    (Full(), 9, 9, "dense", {"batch": 2, "heads": (2, 2), "bias_size": (2, 2)}),
    (Causal(), 70, 70, "table", {"return_lse": True}),
    (Causal(offset=-5), 65, 7, "none", {"return_lse": True}),
    (Window(9, 0) & Packed((0, 60, 90)), 90, 90, "none", {}),
    (Global(3) | Window(2, 2), 100, 100, "none", {}),
    (Streaming(2, 9, offset=60), 20, 80, "none", {"heads": (4, 2)}),
    (Segments((3, 4), (0, 5)), 7, 5, "none", {"return_lse": True}),
    (Neighborhood((9, 11), 3), 99, 99, "table", {}),
    (Neighborhood((12,), 3, dilation=3, stride=2), 12, 12, "table", {"bias_size": (1, 1)}),
    (Neighborhood((4, 5, 3), 3, causal=(True, False, False)), 60, 60, "none", {}),
    (Windows((14, 7), 7), 98, 98, "table", {"batch": 2}),
    (Windows((8, 12), 4, shift=2, border="-100"), 96, 96, "table", {"batch": 2}),
    (Windows((9, 10), (4, 3), shift=(2, 1), border="zero"), 90, 90, "table", {}),
    (Windows((12, 12), 3, order="grid"), 144, 144, "none", {"heads": (1, 1)}),
    (Halo((8, 8), 4, 2, border="zero"), 64, 64, "none", {}),
    (PerHead(Full(), Causal(), Streaming(1, 3)), 40, 50, "table", {"heads": (3, 3), "bias_size": (1, 3)}),
    (PerHead(Full(), Causal()), 40, 50, "dense", {"batch": 2, "bias_size": (1, 2)}),
    (Blocks(index(2, 5, 2).bool(), 16) & Causal(), 70, 30, "none", {}),
    (
        BlockLists(index(5, 2, 2, 9, 3), 8),
        70,
        33,
        "dense",
        {"batch": 2, "heads": (2, 2), "bias_size": (2, 1)},
    ),
    (BlockLists(index(2, 2, 2, 2), 64) & Causal(), 90, 100, "table", {"bias_size": (1, 1)}),
    (Tokens(index(33, 2, 1, 40, 5)), 40, 33, "none", {"batch": 2}),
    (KeyPadding(index(3, 2, 50) > 0) & Causal(), 40, 50, "none", {"batch": 2, "return_lse": True}),
]


@pytest.mark.parametrize(("pattern", "q_len", "k_len", "kind", "options"), CASES, ids=repr)
def test_patterns_and_biases(
    pattern: Pattern, q_len: int, k_len: int, kind: str, options: dict[str, Any]
) -> None:
    compare(pattern, q_len, k_len, kind, **options)


@pytest.mark.parametrize("dims", [(1, 1), (6, 16), (20, 30), (32, 53), (64, 77), (96, 128), (128, 1)])
def test_head_dimensions(dims: tuple[int, int]) -> None:
    compare(Causal(offset=1), 49, 33, dims=dims, heads=(1, 1))


@pytest.mark.parametrize("lengths", [(1, 1), (1, 130), (63, 64), (0, 3), (3, 0)])
def test_lengths(lengths: tuple[int, int]) -> None:
    compare(Full(), *lengths, heads=(1, 1), return_lse=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 40, 32, device=DEVICE).to(dtype).requires_grad_() for _ in range(3))
    exact = [one.detach().double().requires_grad_() for one in (q, k, v)]
    out = attention(q, k, v, Causal(), backend="triton")
    want = attention(*exact, Causal(), backend="reference")
    weights = torch.randn(want.shape, device=DEVICE, dtype=torch.float64)
    found = [out, *torch.autograd.grad(out, (q, k, v), weights.to(dtype))]
    truth = [want, *torch.autograd.grad(want, exact, weights)]
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 4 * torch.finfo(dtype).eps


def test_strides_need_no_copy() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 20, 2, 8, device=DEVICE).transpose(1, 2)
    k = torch.randn(8, 1, 2, 20, device=DEVICE).permute(1, 2, 3, 0)
    v = torch.randn(1, 2, 20, 12, device=DEVICE)[..., ::2]
    bias = torch.randn(20, 1, 1, 20, device=DEVICE).permute(1, 2, 3, 0).expand(1, 2, 20, 20)
    found = attention(q, k, v, Window(4, 4), bias=bias, backend="triton")
    torch.testing.assert_close(found, attention(q, k, v, Window(4, 4), bias=bias, backend="reference"))


@pytest.mark.parametrize("kind", ["none", "dense", "table"])
def test_operator_is_registered(kind: str) -> None:
    """opcheck: schema, fake tensors, autograd and tracing of the operator itself."""
    from graphrec.kernels.attention.triton import tile_attention

    q, k, v = (torch.randn(1, 2, 9, 4, device=DEVICE, requires_grad=True) for _ in range(3))
    text, held = encode(Tokens(index(9, 9, 3)) & Causal())
    bias = torch.randn(1, 2, 9, 9, device=DEVICE, requires_grad=True) if kind == "dense" else None
    if kind == "table":
        bias = torch.randn(1, 2, 1, 17, device=DEVICE, requires_grad=True)
    times = None if kind == "none" else torch.randn(1, 2, 9, 9, device=DEVICE, requires_grad=True)
    arguments = (q, k, v, bias, times, held, text, "9;" if kind == "table" else ";", 0.5, False)
    torch.library.opcheck(tile_attention.registered, arguments)


def test_compiles_into_one_graph() -> None:
    q, k, v = (torch.randn(1, 2, 64, 8, device=DEVICE, requires_grad=True) for _ in range(3))
    table = torch.randn(2, 49, device=DEVICE, requires_grad=True)

    def run(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        pattern = Windows((8, 8), 4, shift=2)
        return attention(q, k, v, pattern, bias=RelativeBias(table, (4, 4)), backend="triton").sin()

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    found, want = compiled(q, k, v, table), run(q, k, v, table)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        *(torch.autograd.grad(out.sum(), (q, table)) for out in (found, want)), strict=True
    ):
        torch.testing.assert_close(one, other)
