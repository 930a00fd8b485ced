"""Long convolutions against sums over taps in float64, torch's convolutions and the papers' own formulas."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_transforms, assert_within_budget, distance
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import explain, long_conv

LENGTHS = st.sampled_from([1, 2, 7, 49, 63, 65, 197])
PADDING = st.sampled_from(["causal", "same", "circular"])


def runner(backend: str | None, padding: str) -> Callable[..., tuple[Tensor]]:
    return lambda x, weight, skip=None: (long_conv(x, weight, skip, padding=padding, backend=backend),)


def compare(sizes: tuple[int, ...], taps: tuple[int, ...], padding: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    inputs = [torch.randn(2, *sizes, 8), torch.randn(8, *taps), torch.randn(8)]
    assert_within_budget(runner("torch", padding), runner("reference", padding), inputs)


@pytest.fixture(params=["taps", "transforms", "either"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute in one way whatever the size, or as the size says."""
    limit = {"taps": 10**9, "transforms": 0}.get(request.param)
    if limit is not None:
        module = import_module("graphrec.kernels.conv.long")
        monkeypatch.setattr(module, "_DIRECT", {1: limit, 2: limit})
    return str(request.param)


@settings(max_examples=40)
@given(LENGTHS, st.sampled_from([1, 2, 7, 16, 17, 65, 130, 200]), PADDING, st.integers(0, 99))
def test_sequences(length: int, taps: int, padding: str, seed: int) -> None:
    compare((length,), (taps,), padding, seed)


@settings(max_examples=25)
@given(
    st.sampled_from([(1, 1), (7, 7), (5, 12), (14, 9)]),
    st.sampled_from([(1, 1), (3, 3), (4, 2), (7, 7), (15, 20)]),
    PADDING,
    st.integers(0, 99),
)
def test_images(sizes: tuple[int, int], taps: tuple[int, int], padding: str, seed: int) -> None:
    compare(sizes, taps, padding, seed)


@pytest.mark.parametrize("padding", ["causal", "same", "circular"])
@pytest.mark.parametrize("taps", [1, 4, 9, 30])
def test_routes_agree(taps: int, padding: str, route: str) -> None:
    compare((13,), (taps,), padding)
    compare((6, 5), (taps, 3), padding)


def test_a_thousand_taps() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 1025, 2), torch.randn(2, 1025)
    want = F.conv1d(F.pad(x.mT.double(), (1024, 0)), weight.double().flip(1).unsqueeze(1), groups=2).mT
    assert distance(long_conv(x, weight), want) < 1e-6
    assert distance(long_conv(x, weight, backend="reference"), want) < 1e-6


def test_by_hand() -> None:
    x, weight = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[1.0, 10.0, 100.0]])
    for backend in ("reference", "torch"):
        found = [
            long_conv(x, weight, padding=how, backend=backend).flatten().tolist()
            for how in ("causal", "same", "circular")
        ]
        assert found[0] == pytest.approx([1, 12, 123])
        assert found[1] == pytest.approx([12, 123, 230])
        assert found[2] == pytest.approx([1 + 30 + 200, 2 + 10 + 300, 3 + 20 + 100])
        skipped = long_conv(x, weight, torch.tensor([0.5]), backend=backend)
        assert skipped.flatten().tolist() == pytest.approx([1.5, 13, 124.5])


def test_same_is_torch_with_the_filter_turned() -> None:
    x, weight = torch.randn(2, 9, 8, 3).double(), torch.randn(3, 5, 7).double()
    want = F.conv2d(x.permute(0, 3, 1, 2), weight.flip(1, 2).unsqueeze(1), padding="same", groups=3)
    torch.testing.assert_close(long_conv(x, weight, padding="same"), want.permute(0, 2, 3, 1))


def test_hyena() -> None:
    """Its fftconv: transforms of twice the length, on (B, D, T), with D times the input added."""
    u, k, skip = torch.randn(2, 3, 65).double(), torch.randn(3, 65).double(), torch.randn(3).double()
    spectrum = torch.fft.rfft(u, n=130) * (torch.fft.rfft(k, n=130) / 130)
    want = torch.fft.irfft(spectrum, n=130, norm="forward")[..., :65] + u * skip.unsqueeze(-1)
    torch.testing.assert_close(long_conv(u.mT, k, skip).mT, want)


@pytest.mark.parametrize("sizes", [(14, 14), (7, 9), (8, 5)])
def test_gfnet(sizes: tuple[int, int]) -> None:
    """Its global filter: a complex weight times the spectrum, orthonormal, over the axes of an image."""
    height, width = sizes
    x = torch.randn(2, height, width, 3).double()
    weight = torch.randn(height, width // 2 + 1, 3, dtype=torch.complex128)
    spectrum = torch.fft.rfft2(x, dim=(1, 2), norm="ortho") * weight
    want = torch.fft.irfft2(spectrum, s=sizes, dim=(1, 2), norm="ortho")
    taps = torch.fft.irfft2(weight.permute(2, 0, 1), s=sizes)
    torch.testing.assert_close(long_conv(x, taps, padding="circular"), want)
    torch.testing.assert_close(long_conv(x, taps, padding="circular", backend="reference"), want)


def test_the_past_does_not_see_the_future() -> None:
    """Up to rounding: a transform touches everything."""
    x, weight = torch.randn(1, 40, 2).double(), torch.randn(2, 60).double()
    before = long_conv(x, weight)[:, :20]
    x[:, 20:] = 9.0
    torch.testing.assert_close(long_conv(x, weight)[:, :20], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_inside(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for taps in (4, 100):
        x, weight = torch.randn(2, 100, 4).to(dtype), torch.randn(4, taps)
        out = long_conv(x, weight, torch.randn(4))
        assert out.dtype == dtype
        exact = long_conv(x.double(), weight.double(), backend="reference")
        assert distance(long_conv(x, weight), exact) < torch.finfo(dtype).eps


def test_strides_and_nothing() -> None:
    x, weight = torch.randn(2, 3, 30).mT, torch.randn(40, 3).t()
    torch.testing.assert_close(
        long_conv(x, weight), long_conv(x.contiguous(), weight.contiguous(), backend="reference")
    )
    assert long_conv(torch.zeros(2, 0, 3), weight).shape == (2, 0, 3)
    assert long_conv(torch.zeros(0, 4, 4, 3), torch.zeros(3, 2, 2)).shape == (0, 4, 4, 3)


@pytest.mark.parametrize("padding", ["causal", "same", "circular"])
def test_gradcheck(padding: str, route: str) -> None:
    torch.manual_seed(0)
    given = [torch.randn(*size).double().requires_grad_() for size in ((2, 5, 2), (2, 7), (2,))]
    assert torch.autograd.gradcheck(runner("torch", padding), given)
    assert torch.autograd.gradgradcheck(runner("torch", padding), given)


class Layer(torch.nn.Module):
    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor, weight: Tensor, skip: Tensor) -> Tensor:
        return long_conv(x, weight, skip, padding=self.padding).sin()


@pytest.mark.parametrize("padding", ["causal", "same", "circular"])
@pytest.mark.parametrize("sizes", [((2, 20, 3), (3, 20)), ((2, 6, 5, 3), (3, 6, 5)), ((2, 20, 3), (3, 4))])
def test_compiles_exports_and_checkpoints(padding: str, sizes: tuple[Any, Any]) -> None:
    torch._dynamo.reset()
    leaves = [torch.randn(*size, requires_grad=True) for size in (*sizes, (3,))]
    assert_transforms(Layer(padding), leaves, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("taps", [4, 40])
def test_autocast_leaves_it_in_float32(taps: int) -> None:
    x, weight = torch.randn(2, 40, 3), torch.randn(3, taps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = long_conv(x, weight)
    assert torch.equal(out, long_conv(x, weight))


def test_explain_says_why_there_is_no_kernel() -> None:
    told = explain(long_conv, torch.zeros(1, 5, 2), torch.zeros(2, 5))
    assert told.backend == "torch"
    assert "cuFFT" in told.refused["triton"]


ROW, IMAGE = torch.zeros(1, 5, 3), torch.zeros(1, 5, 5, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: long_conv(ROW, torch.zeros(2, 5)), r"\(1, 5, 3\) and \(2, 5\)"),
        (lambda: long_conv(IMAGE, torch.zeros(3, 5)), r"\(B, H, W, D\) with weight \(D, KH, KW\)"),
        (lambda: long_conv(ROW, torch.zeros(3, 0)), r"\(3, 0\)"),
        (lambda: long_conv(ROW, torch.zeros(3, 5), torch.zeros(5)), r"skip of shape \(5,\) must be \(3,\)"),
        (lambda: long_conv(ROW, torch.zeros(3, 5), padding="zero"), "padding='zero' must be one of"),
        (lambda: long_conv(ROW.long(), torch.zeros(3, 5)), "x of shape .* must be floating point"),
        (lambda: long_conv(ROW, torch.zeros(3, 5), backend="triton"), "cannot run long_conv: .*cuFFT"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
