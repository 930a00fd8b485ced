"""Dynamic convolution against unfolded windows, and against what the papers' own code computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget, distance
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import attention, dynamic_conv2d, explain, outlook
from graphrec.kernels.patterns import Neighborhood


def unfolded(x: Tensor, weight: Tensor, kernel: int, **options: int) -> Tensor:
    """Involution as its authors write it: unfold, multiply, sum; zeros at the border."""
    batch, groups, taps, high, wide = weight.shape
    options = {"padding": options.get("dilation", 1) * (kernel // 2), **options}
    windows = F.unfold(x, kernel, **options).view(batch, groups, -1, taps, high, wide)
    return (windows * weight.unsqueeze(2)).sum(3).flatten(1, 2)


AXIS = st.tuples(
    st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4)
)


def geometry(down: tuple[int, ...], across: tuple[int, ...], border: str, same: bool) -> dict[str, Any]:
    """Options of a drawn geometry, with sizes ``shape`` and ``out``; an empty dict where none fits."""
    kernel, stride, dilation, padding = zip(down[1:], across[1:], strict=True)
    size = down[0], across[0]
    if border == "shift":
        if any(kernel[i] * dilation[i] > size[i] for i in range(2)):
            return {}
        stride, same = (1, 1), True
    out = tuple(
        -(-size[i] // stride[i])
        if same
        else (size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )
    if min(out) < 1:
        return {}
    options = {"kernel_size": kernel, "stride": stride, "dilation": dilation, "border": border}
    return {**options, "padding": "same" if same else padding, "shape": size, "out": out}


@settings(max_examples=60)
@given(AXIS, AXIS, st.sampled_from(["zero", "shift"]), st.booleans(), st.booleans(), st.integers(0, 99))
def test_against_the_reference(
    down: tuple[int, ...], across: tuple[int, ...], border: str, same: bool, interleaved: bool, seed: int
) -> None:
    options = geometry(down, across, border, same)
    if not options:
        return
    torch.manual_seed(seed)
    shape, out = options.pop("shape"), options.pop("out")
    groups, taps = 1 + seed % 3, options["kernel_size"][0] * options["kernel_size"][1]
    x = torch.randn(1 + seed % 2, groups * (1 + seed % 5), *shape)
    weight = torch.randn(len(x), groups, taps, *out)

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda x, w: (dynamic_conv2d(x, w, **options, interleaved=interleaved, backend=backend),)

    assert_within_budget(run("torch"), run("reference"), [x, weight])


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"dilation": 2}, {"stride": 3, "dilation": 2}], ids=repr
)
def test_is_involution(kernel: int, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 11, 9)
    high, wide = (-(-size // options.get("stride", 1)) for size in (11, 9))
    weight = torch.randn(2, 3, kernel * kernel, high, wide)
    want = unfolded(x, weight, kernel, **options)
    for backend in ("torch", "reference"):
        found = dynamic_conv2d(x, weight, kernel_size=kernel, **options, backend=backend)
        torch.testing.assert_close(found, want)


def test_interleaved_groups_are_those_of_lsnet() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 8, 5, 6), torch.randn(1, 2, 9, 5, 6)
    found = dynamic_conv2d(x, weight, kernel_size=3, interleaved=True)
    for channel in range(8):
        one = dynamic_conv2d(x[:, channel : channel + 1], weight[:, channel % 2].unsqueeze(1), kernel_size=3)
        torch.testing.assert_close(found[:, channel : channel + 1], one)


def test_shifted_windows_are_those_of_overlock() -> None:
    """ContMix without its optional package: windows without padding, the outer ones repeated."""
    torch.manual_seed(0)
    x, logits = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8, 25)
    weight = logits.softmax(-1)
    windows = F.unfold(x, 5).view(2, -1, 5, 4)
    windows = F.pad(windows, (2, 2, 2, 2), mode="replicate").view(2, 2, 2, 25, 9, 8)
    want = torch.einsum("bghwk,bgckhw->bgchw", weight, windows).flatten(1, 2)
    given_ = weight.permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(dynamic_conv2d(x, given_, kernel_size=5, border="shift"), want)


@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((3, 5), 1), ((3, 3), 2), ((4, 3), (1, 3))])
def test_shifted_windows_are_neighborhood_attention(kernel: tuple[int, int], dilation: Any) -> None:
    """With the weights of neighborhood attention for filters, the output is that of attention."""
    torch.manual_seed(0)
    pattern = Neighborhood((9, 10), kernel, dilation=dilation)
    q, k, v = (torch.randn(1, 2, 90, 4, dtype=torch.float64) for _ in range(3))
    mask = pattern.mask(90, 90)
    logits = (q @ k.mT * 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
    taps = mask.nonzero()[:, 1].view(90, -1)  # keys in raster order, which is that of the taps
    filters = logits.gather(3, taps.expand(1, 2, -1, -1)).mT.unflatten(-1, (9, 10))
    value = v.transpose(2, 3).reshape(1, 8, 9, 10)
    found = dynamic_conv2d(value, filters, kernel_size=kernel, dilation=dilation, border="shift")
    want = attention(q, k, v, pattern)
    torch.testing.assert_close(found.view(1, 2, 4, 90).mT, want)


def volo(x: Tensor, attn: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Outlook attention as its authors write it, (B, heads, windows, k^2, k^2) weights given."""
    batch, heads, windows = attn.shape[:3]
    v = F.unfold(x, kernel, padding=padding, stride=stride)
    v = v.view(batch, heads, -1, kernel * kernel, windows).permute(0, 1, 4, 3, 2)
    out = (attn @ v).permute(0, 1, 4, 3, 2).reshape(batch, -1, windows)
    return F.fold(out, x.shape[2:], kernel, padding=padding, stride=stride)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 3, 2), (3, 1, 0)]
)
def test_outlook_is_that_of_volo(kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    size = tuple((one + 2 * padding - kernel) // stride + 1 for one in (9, 8))
    x = torch.randn(2, 6, 9, 8)
    attn = torch.randn(2, 3, size[0] * size[1], kernel**2, kernel**2).softmax(-1)
    weight = attn.permute(0, 1, 3, 4, 2).unflatten(-1, size)
    options: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding}
    want = volo(x, attn, kernel, stride, padding)
    torch.testing.assert_close(outlook(x, weight, **options), want)
    torch.testing.assert_close(outlook(x, weight, **options, backend="reference"), want)
    assert_within_budget(
        lambda x, w: (outlook(x, w, **options),),
        lambda x, w: (outlook(x, w, **options, backend="reference"),),
        [x, weight],
    )


CALLS: list[tuple[dict[str, Any], int, tuple[int, int]]] = [
    ({}, 2, (3, 4)),
    ({"border": "shift"}, 3, (3, 4)),
    ({"stride": 2, "padding": (1, 0), "dilation": (1, 2)}, 2, (2, 1)),
]


@pytest.mark.parametrize(("options", "kernel", "size"), CALLS, ids=repr)
def test_gradients_by_finite_differences(options: dict[str, Any], kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, kernel**2, *size, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, w: Tensor) -> Tensor:
        return dynamic_conv2d(x, w, kernel_size=kernel, **options)

    assert torch.autograd.gradcheck(call, (x, weight))
    if kernel == 2:
        assert torch.autograd.gradgradcheck(call, (x, weight))


def test_gradients_of_outlook_by_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 4, 4, 1, 2, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, w: Tensor) -> Tensor:
        return outlook(x, w, kernel_size=2, stride=2, padding=0)

    assert torch.autograd.gradcheck(call, (x, weight))
    assert torch.autograd.gradgradcheck(call, (x, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    assert_within_budget(
        lambda x, w: (dynamic_conv2d(x, w, kernel_size=3),),
        lambda x, w: (dynamic_conv2d(x, w, kernel_size=3, backend="reference"),),
        [torch.randn(1, 6, 7, 8), torch.randn(1, 2, 9, 7, 8)],
        dtype,
    )


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphrec.kernels.conv import dynamic_torch

    torch.manual_seed(0)
    x, weight = torch.randn(3, 6, 7, 8, requires_grad=True), torch.randn(3, 2, 9, 7, 8, requires_grad=True)
    found = []
    for piece in (1, 2 * 56, 4 * 56, 1 << 20):
        monkeypatch.setattr(dynamic_torch, "_PIECE", piece)
        out = dynamic_conv2d(x, weight, kernel_size=3)
        found.append([out, *torch.autograd.grad(out.sin().sum(), (x, weight))])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other)


def test_layouts() -> None:
    """Channels last stays so, and other strides are read as they are."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, 7, 8), torch.randn(2, 7, 8, 3, 9).permute(0, 3, 4, 1, 2)
    want = dynamic_conv2d(x, weight.contiguous(), kernel_size=3)
    last = dynamic_conv2d(x.contiguous(memory_format=torch.channels_last), weight, kernel_size=3)
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, want)
    strided = torch.randn(2, 8, 7, 12).transpose(1, 3)[:, ::2]
    found = dynamic_conv2d(strided, weight, kernel_size=3)
    torch.testing.assert_close(found, dynamic_conv2d(strided, weight, kernel_size=3, backend="reference"))


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (1, 4, 1, 1), (2, 4, 1, 7)])
def test_small_and_empty(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[0], 2, 9, *shape[2:], requires_grad=True)
    found = dynamic_conv2d(x, weight, kernel_size=3)
    torch.testing.assert_close(found, dynamic_conv2d(x, weight, kernel_size=3, backend="reference"))
    dx, dweight = torch.autograd.grad(found.sum(), (x, weight))
    assert dx.shape == x.shape
    assert dweight.shape == weight.shape


class Dynamic(torch.nn.Module):
    """A layer that makes its filters from its input."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Conv2d(4, 4, 1)
        self.make = torch.nn.Conv2d(4, 2 * 9, 1)
        self.look = torch.nn.Conv2d(4, 2 * 81, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = dynamic_conv2d(self.value(x), self.make(x).unflatten(1, (2, 9)), kernel_size=3, border="shift")
        return outlook(x, self.look(x).unflatten(1, (2, 9, 9)), kernel_size=3).sin()


def test_compiles_exports_and_checkpoints() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer, x = Dynamic(), torch.randn(1, 4, 6, 5, requires_grad=True)
    want = layer(x)
    truth = torch.autograd.grad(want.sum(), x, retain_graph=True)[0]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    again = checkpoint(layer, x, use_reentrant=False)
    for found in (compiled, again):
        torch.testing.assert_close(found, want)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], truth)
    exported = torch.export.export(layer, (x.detach(),))
    torch.testing.assert_close(exported.module()(x.detach()), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert distance(low, want) < 0.03


def test_operators_are_registered() -> None:
    from graphrec.kernels.conv import dynamic_registered, volo_filters

    x, weight = torch.randn(1, 4, 4, 5, requires_grad=True), torch.randn(1, 2, 9, 2, 3, requires_grad=True)
    grad = torch.randn(1, 4, 2, 3, requires_grad=True)
    rest = ([3, 3, 2, 2, 1, 1, 1, 1], "zero", True, "torch")
    torch.library.opcheck(dynamic_registered.convolve.registered, (x, weight, *rest))
    torch.library.opcheck(dynamic_registered.to_input.registered, (grad, weight, [4, 5], *rest))
    torch.library.opcheck(dynamic_registered.to_weight.registered, (grad, x, 2, *rest))
    wide = torch.randn(1, 2, 9, 9, 2, 3, requires_grad=True)
    torch.library.opcheck(volo_filters.gather_filters.registered, (wide, [4, 5], rest[0]))
    filters = torch.randn(1, 2, 25, 4, 5, requires_grad=True)
    torch.library.opcheck(volo_filters.spread_filters.registered, (filters, [2, 3], rest[0]))


X = torch.zeros(1, 4, 6, 6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dynamic_conv2d(X[0], torch.zeros(1, 2, 9, 6, 6), kernel_size=3), r"x must be .*\(4, 6, 6\)"),
        (
            lambda: dynamic_conv2d(X.long(), torch.zeros(1, 2, 9, 6, 6), kernel_size=3),
            "x must be floating point",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 36), kernel_size=3),
            r"weight must be .*\(1, 2, 9, 36\)",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 3, 9, 6, 6), kernel_size=3),
            "3 groups, which must divide the 4",
        ),
        (lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=5), r"must be \(1, 2, 25, 6, 6\)"),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=3, stride=2),
            r"\(1, 2, 9, 3, 3\)",
        ),
        (lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=0), "kernel_size=0 must be"),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=3, border="wrap"),
            "border='wrap'",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 49, 6, 6), kernel_size=7, border="shift"),
            r"kernel_size \(7, 7\) with dilation \(1, 1\) does not fit x of shape \(1, 4, 6, 6\)",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 3, 3), kernel_size=3, border="shift", stride=2),
            "border='shift' goes with stride 1",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=3, padding="valid"),
            "padding='valid'",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 49, 6, 6), kernel_size=7, padding=0),
            "leaves no output",
        ),
        (
            lambda: dynamic_conv2d(X, torch.zeros(1, 2, 9, 6, 6), kernel_size=3, backend="triton"),
            "cannot run dynamic_conv2d",
        ),
        (
            lambda: outlook(X, torch.zeros(1, 2, 9, 9, 36), kernel_size=3),
            r"weight \(B, G, k\^2, k\^2, h, w\)",
        ),
        (lambda: outlook(X, torch.zeros(1, 2, 9, 9, 6, 5), kernel_size=3), r"must be \(1, 2, 9, 9, 6, 6\)"),
        (lambda: outlook(X, torch.zeros(1, 3, 9, 9, 6, 6), kernel_size=3), "3 groups"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_explain_tells_the_backend() -> None:
    assert explain(dynamic_conv2d, X, torch.zeros(1, 2, 9, 6, 6), kernel_size=3).backend == "torch"
