"""The Triton kernels of recurrences, on a GPU or interpreted, against the float64 formula; fresh memory: NaN.

The interpreter combines element by element: some 60 us each, so cases are small.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from kernel_tools import assert_transforms, assert_within_budget, distance, gradients
from test_scan import call, draw
from torch import Tensor

from graphrec.kernels import scan, selective_scan
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def placed(tensors: list[Tensor]) -> list[Tensor]:
    return [one.to(DEVICE) for one in tensors]


def run_scan(backend: str, reverse: bool) -> Callable[..., tuple[Tensor]]:
    return lambda a, b, *first: (
        scan(a, b, initial=first[0] if first else None, reverse=reverse, backend=backend),
    )


def scan_inputs(length: int, width: int, initial: bool = True) -> list[Tensor]:
    torch.manual_seed(length)
    inputs = [torch.rand(2, length, width) * 1.2 - 0.1, torch.randn(2, length, width)]
    return placed([*inputs, torch.randn(2, width)] if initial else inputs)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "width"), [(1, 1), (2, 6), (7, 3), (63, 5), (65, 4)])
def test_scan(length: int, width: int, reverse: bool) -> None:
    inputs = scan_inputs(length, width, initial=length != 7)
    assert_within_budget(run_scan("triton", reverse), run_scan("reference", reverse), inputs)


@pytest.mark.parametrize("programs", [1, 6, 10])
def test_splits_do_not_matter(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program for a sequence, or two or three with an uneven last one."""
    monkeypatch.setattr(import_module("graphrec.kernels.scan.settings"), "PROGRAMS", programs)
    assert_within_budget(run_scan("triton", False), run_scan("reference", False), scan_inputs(35, 3))


def test_scan_reads_strides() -> None:
    a = torch.rand(2, 5, 1, 20, device=DEVICE).permute(0, 3, 1, 2).expand(2, 20, 5, 3)
    b = torch.randn(20, 2, 5, 6, device=DEVICE).transpose(0, 1)[..., ::2]
    torch.testing.assert_close(scan(a, b, backend="triton"), scan(a, b, backend="reference"))
    assert scan(a[:, :0], b[:, :0], backend="triton").shape == (2, 0, 5, 3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 17, 33])
def test_selective_scan(length: int, reverse: bool) -> None:
    run, plain = (call(reverse=reverse, backend=name) for name in ("triton", "reference"))
    assert_within_budget(run, plain, placed(draw(2, length, 5, 3)))


@pytest.mark.parametrize("names", [(), ("skip",), ("gate",), ("state",)])
def test_optional_inputs(names: tuple[str, ...]) -> None:
    every = draw(1, 9, 6, 2)
    optional = dict(zip(("skip", "gate", "state"), every[5:], strict=True))
    run, plain = (call(names, backend=name) for name in ("triton", "reference"))
    assert_within_budget(run, plain, placed([*every[:5], *(optional[name] for name in names)]))


def test_long_sequence() -> None:
    """Many chunks; the carry between them is a scan of its own."""
    given = placed(draw(1, 197, 2, 1))
    for backend in ("triton", "reference"):
        found = gradients(call(backend=backend), given, torch.float32)
        if backend == "triton":
            ours = found
    for one, other in zip(ours, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    """The interpreter cuts bfloat16 off where a GPU rounds, which costs it one more bit."""
    given = placed(draw(1, 20, 6, 3))
    leaves = [(one if place in (2, 5) else one.to(dtype)).requires_grad_() for place, one in enumerate(given)]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    out, final = call(backend="triton")(*leaves)
    want, want_final = call(backend="reference")(*exact)
    assert (out.dtype, final.dtype) == (dtype, torch.float32)
    weights = torch.randn_like(want)
    found = [out, final, *torch.autograd.grad(out, leaves, weights.to(dtype))]
    truth = [want, want_final, *torch.autograd.grad(want, exact, weights.to(dtype).double())]
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 4 * torch.finfo(dtype).eps
    a, b = torch.rand(2, 20, 3, device=DEVICE).to(dtype), torch.randn(2, 20, 3, device=DEVICE).to(dtype)
    exactly = scan(a.double(), b.double(), backend="reference")
    assert distance(scan(a, b, backend="triton"), exactly) < 2 * torch.finfo(dtype).eps


def test_selective_scan_reads_strides() -> None:
    given = placed(draw(2, 11, 6, 4))
    apart = [one.mT.contiguous().mT if one.dim() > 1 else one for one in given]
    torch.testing.assert_close(call(backend="triton")(*apart), call(backend="reference")(*given))


def test_operators_are_registered() -> None:
    from graphrec.kernels.scan.selective_triton import tile_selective_scan
    from graphrec.kernels.scan.triton import tile_scan

    a, b, first = (one.requires_grad_() for one in scan_inputs(9, 3))
    torch.library.opcheck(tile_scan.registered, (a, b, first, True))
    leaves = [one.requires_grad_() for one in placed(draw(1, 9, 3, 2))]
    torch.library.opcheck(tile_selective_scan.registered, (*leaves, True))
    torch.library.opcheck(tile_selective_scan.registered, (*leaves[:5], None, None, None, False))


def test_compiles_exports_and_checkpoints() -> None:
    leaves = [one.requires_grad_() for one in placed(draw(1, 9, 3, 2))]

    class Layer(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            out = selective_scan(*given[:5], skip=given[5], backend="triton")  # type: ignore[call-overload]
            return scan(torch.sigmoid(out), out, backend="triton")

    assert_transforms(Layer(), leaves)
