"""The Triton kernels of many small groups in one program, against the float64 formula."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import RelativeBias, attention
from graphrec.kernels.attention.settings import group_config
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.patterns import Neighborhood, Pattern, PerHead, Segments, Windows, stripes

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which kernels of small groups ran."""
    from graphrec.kernels.attention import small

    seen: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        run = getattr(small, name)

        def call(*args: Any) -> Any:
            seen.append(name)
            return run(*args)

        return call

    for name in ("forward", "backward"):
        monkeypatch.setattr(small, name, noted(name))
    return seen


def is_small(pattern: Pattern, length: int) -> bool:
    """Whether a program on this machine holds the pattern's groups in float32."""
    groups = pattern.partition(length)
    assert groups is not None
    return group_config(groups.shape[1], 32, torch.float32, not ON_GPU) is not None


CASES: list[tuple[Pattern, int, int, int, int]] = [
    (Windows((14, 7), 7), 98, 2, 2, 2),
    (Windows((14, 14), 7, shift=3), 196, 1, 1, 1),
    (Windows((8, 12), 4, shift=2, border="-100"), 96, 2, 2, 2),
    (Windows((9, 10), (4, 3), shift=(2, 1), border="zero"), 90, 1, 2, 1),
    (Windows((6, 6), 2, order="grid"), 36, 5, 2, 2),
    (stripes((6, 7), 2, 1), 42, 1, 1, 0),
    (Windows((3, 1), 1), 3, 1, 1, 0),
]


@pytest.mark.parametrize(("pattern", "length", "batch", "heads", "tables"), CASES, ids=repr)
def test_groups(
    pattern: Pattern, length: int, batch: int, heads: int, tables: int, launches: list[str]
) -> None:
    torch.manual_seed(0)
    given = [torch.randn(batch, heads, length, dim, device=DEVICE).double() for dim in (10, 10, 7)]
    window = tuple(far + 1 for far in pattern.extent(length, length))
    if tables:
        columns = torch.Size(2 * one - 1 for one in window).numel()
        given.append(torch.randn(tables, columns, device=DEVICE).double())

    def runner(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def run(q: Tensor, k: Tensor, v: Tensor, *table: Tensor) -> tuple[Tensor, ...]:
            name = "reference" if q.dtype == torch.float64 else backend
            bias = RelativeBias(table[0], window) if table else None
            return attention(q, k, v, pattern, bias=bias, return_lse=True, backend=name)

        return run

    assert_within_budget(runner("triton"), runner("reference"), given)
    assert launches == (["forward", "backward"] if is_small(pattern, length) else [])


@pytest.mark.parametrize("dims", [(1, 1), (6, 16), (20, 30), (32, 17)])
def test_head_dimensions(dims: tuple[int, int], launches: list[str]) -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, 1, 49, dim, device=DEVICE).double() for dim in (dims[0], *dims)]

    def runner(backend: str) -> Callable[..., tuple[Tensor]]:
        def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
            name = "reference" if q.dtype == torch.float64 else backend
            return (attention(q, k, v, Windows((7, 7), 7), backend=name),)

        return run

    assert_within_budget(runner("triton"), runner("reference"), given)
    assert launches == (["forward", "backward"] if is_small(Windows((7, 7), 7), 49) else [])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype, launches: list[str]) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 32, device=DEVICE).to(dtype).requires_grad_() for _ in range(3))
    exact = [one.detach().double().requires_grad_() for one in (q, k, v)]
    out = attention(q, k, v, Windows((8, 8), 4), backend="triton")
    want = attention(*exact, Windows((8, 8), 4), backend="reference")
    weights = torch.randn(want.shape, device=DEVICE, dtype=torch.float64)
    found = [out, *torch.autograd.grad(out, (q, k, v), weights.to(dtype))]
    truth = [want, *torch.autograd.grad(want, exact, weights)]
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 4 * torch.finfo(dtype).eps
    assert launches == ["forward", "backward"]


def test_other_calls_take_the_tile_kernels(launches: list[str]) -> None:
    def draw(heads: int = 2, length: int = 128) -> Tensor:
        return torch.randn(1, heads, length, 4, device=DEVICE)

    windows = Windows((8, 16), 4)
    calls: list[tuple[Pattern, Tensor, dict[str, Any]]] = [
        (windows, draw(1), {}),
        (windows, draw(), {"bias": torch.randn(1, 1, 128, 128, device=DEVICE)}),
        (windows, draw(), {"times": torch.randn(1, 1, 128, 128, device=DEVICE)}),
        (windows, draw(), {"bias": RelativeBias(torch.randn(1, 1, 128, 49, device=DEVICE), (4, 4))}),
        (Neighborhood((8, 16), 3), draw(), {}),
        (PerHead(windows, Windows((8, 16), 2)), draw(), {}),
        (Segments((60, 68)), draw(), {}),
    ]
    for pattern, keys, options in calls:
        q = draw()
        found = attention(q, keys, keys, pattern, backend="triton", **options)
        want = attention(q, keys, keys, pattern, backend="reference", **options)
        torch.testing.assert_close(found, want)
    assert launches == []
