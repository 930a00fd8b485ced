"""Layers of 16-bit numbers on a processor that emulates them: float32 inside, rounded once, kept narrow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from graphrec.kernels.attention import core
from graphrec.vision.layers import Conv2d, Linear, wide

HALVES = [torch.bfloat16, torch.float16]
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: Linear(8, 6),
    "no bias": lambda: Linear(8, 6, bias=False),
    "conv": lambda: Conv2d(8, 6, 3, 2, 1),
    "depthwise": lambda: Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "pointwise": lambda: Conv2d(8, 4, 1, bias=False),
}


@pytest.fixture(autouse=True)
def _emulating(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor had no instructions for either type."""
    monkeypatch.setattr(core, "_SLOW_TYPES", tuple(HALVES))
    torch.manual_seed(0)


def drawn(name: str) -> Tensor:
    x = torch.randn(3, 8, 7, 5).to(memory_format=torch.channels_last)
    return x if name in ("conv", "depthwise", "pointwise") else x.permute(0, 2, 3, 1)


def answers(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of the parameters."""
    x = x.detach().requires_grad_()
    out = layer(x)
    grads = torch.autograd.grad(out.float().sin().sum(), [x, *layer.parameters()])
    return [out, *grads]


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", LAYERS)
def test_no_worse_than_torch(
    name: str, dtype: torch.dtype, cast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types and layouts are torch's own, and errors against float64 at most its own and one rounding."""
    layer, x = LAYERS[name](), drawn(name)
    if not cast:
        layer, x = layer.to(dtype), x.to(dtype)
    exact = LAYERS[name]().double()
    exact.load_state_dict(layer.state_dict())
    want = answers(exact, x.double())

    def run() -> list[Tensor]:
        with torch.autocast("cpu", dtype, enabled=cast):
            return answers(layer, x)

    ours = run()
    monkeypatch.setattr(core, "_SLOW_TYPES", ())
    theirs = run()
    for one, other, exactly in zip(ours, theirs, want, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        own, torchs = ((found.double() - exactly).norm() for found in (one, other))
        assert own <= 1.1 * torchs + torch.finfo(dtype).eps * exactly.norm()
    assert ours[0].stride() == theirs[0].stride()


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("name", ["conv", "depthwise", "pointwise"])
def test_gradients_of_half_the_images_at_a_time(
    name: str, wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = LAYERS[name](), drawn(name).bfloat16()  # three images
    layer.weight.requires_grad_(wanted[1])

    def run() -> list[Tensor]:
        one = x.detach().requires_grad_(wanted[0])
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(one)
        asked = [one for one in (one, *layer.parameters()) if one.requires_grad]
        return list(torch.autograd.grad(out.float().sin().sum(), asked))

    whole = run()
    monkeypatch.setattr(wide, "_MANY", 1)
    halves = run()
    for one, other in zip(whole, halves, strict=True):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_differs_from_torch_only_by_rounding_once(name: str) -> None:
    """Without gradients, under autocast, it is float32's result, rounded."""
    layer, x = LAYERS[name](), drawn(name)
    with torch.no_grad():
        want = layer(x).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), want)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_kept_is_narrow(name: str, cast: bool) -> None:
    layer, x = LAYERS[name](), drawn(name)
    if not cast:
        layer, x = layer.bfloat16(), x.bfloat16()
    kept: list[Tensor] = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one),
        torch.autocast("cpu", torch.bfloat16, enabled=cast),
    ):
        layer(x.requires_grad_())
    weights = {one.data_ptr() for one in layer.parameters()}
    assert {one.dtype for one in kept if one.data_ptr() not in weights} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["linear", "conv"])
def test_frozen_parts_and_second_derivatives(name: str) -> None:
    layer, x = LAYERS[name]().bfloat16(), drawn(name).bfloat16()
    layer.weight.requires_grad_(False)
    out = layer(x)
    out.sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    layer.weight.requires_grad_()
    x.requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), layer.weight)
    assert second.abs().sum() > 0


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives_reach_the_input(name: str, cast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a weight depends on the input, which is kept in another type under autocast."""
    layer, x = LAYERS[name](), drawn(name).requires_grad_()
    if not cast:
        layer, x = layer.bfloat16(), x.detach().bfloat16().requires_grad_()

    def run() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            out = layer(x).float().sin().sum()
        (first,) = torch.autograd.grad(out, layer.weight, create_graph=True)
        return torch.autograd.grad(first.float().square().sum(), x)[0].float()

    ours = run()
    monkeypatch.setattr(core, "_SLOW_TYPES", ())
    theirs = run()
    assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_a_frozen_linear_layer_keeps_no_input() -> None:
    layer, kept = Linear(8, 6).requires_grad_(False), []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one),
        torch.autocast("cpu", torch.bfloat16),
    ):
        layer(drawn("linear").requires_grad_()).sum().backward()
    assert [one.shape for one in kept] == [layer.weight.shape]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit is on its way out
def test_single_examples_traces_and_forward_mode() -> None:
    """What has no batch, is traced with gradients, or is differentiated forwards goes torch's way."""
    linear, conv = Linear(8, 6).bfloat16(), LAYERS["conv"]().bfloat16()
    row, picture = torch.randn(8).bfloat16(), drawn("conv")[0].bfloat16()
    for layer, x in ((linear, row), (conv, picture)):
        layer(x.requires_grad_()).sum().backward()
        assert x.grad is not None
        batch = x.detach()[None]
        traced = torch.jit.trace(layer, batch)
        assert "PythonOp" not in str(traced.graph)
        with forward_ad.dual_level():
            out = layer(forward_ad.make_dual(batch, torch.ones_like(batch)))
            assert forward_ad.unpack_dual(out).tangent is not None
    norm = nn.LayerNorm(8)
    plain = Linear(8, 6)
    plain(norm(torch.randn(8))).sum().backward()
    with forward_ad.dual_level():
        out = plain(norm(forward_ad.make_dual(torch.randn(2, 8), torch.ones(2, 8))))
        assert forward_ad.unpack_dual(out).tangent is not None


def test_torch_where_it_is_as_good_or_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32, float64 under autocast, types that do not fit, string padding, counters: torch's own way."""
    linear = Linear(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.double()(drawn("linear").double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="dtype"):
        Linear(8, 6)(torch.ones(2, 8, dtype=torch.long))
    with pytest.raises(RuntimeError, match="dtype"):
        Linear(8, 6)(drawn("linear").bfloat16())
    padded = Conv2d(8, 6, 3, padding="same", padding_mode="reflect").bfloat16()
    assert padded(drawn("conv").bfloat16()).shape == (3, 6, 7, 5)
    with FlopCounterMode(display=False) as counter:
        LAYERS["conv"]().bfloat16()(drawn("conv").bfloat16())
    assert counter.get_total_flops() > 0
    compiled = torch.compile(LAYERS["conv"]().bfloat16(), backend="eager", fullgraph=True)
    assert compiled(drawn("conv").bfloat16()).dtype == torch.bfloat16
    cast = torch.compile(LAYERS["linear"](), backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert cast(drawn("linear")).dtype == torch.bfloat16
