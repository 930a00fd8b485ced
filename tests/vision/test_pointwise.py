"""Convolutions with kernels of one number over small maps, which are one product for all images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode
from vision_tools import kept_bytes

from graphrec.vision.layers import Conv2d
from graphrec.vision.layers.pointwise import folds

HOW = ((1, 1), (0, 0), (1, 1), 1)
FOLDED = "_PointwiseBackward"
SHAPES = [(4, 1, 1, 1), (4, 6, 7, 7), (16, 3, 8, 8), (7, 5, 1, 9), (9, 6, 4, 3)]


def both(channels: int, *, bias: bool = True) -> tuple[Conv2d, nn.Conv2d]:
    """Ours and torch's with the same weights in float64."""
    torch.manual_seed(0)
    ours, plain = (make(channels, 5, 1, bias=bias).double() for make in (Conv2d, nn.Conv2d))
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients(shape: tuple[int, ...], bias: bool) -> None:
    x, found = drawn(*shape), []
    for layer in both(shape[1], bias=bias):
        out = layer(x)
        assert (out.grad_fn.name() == FOLDED) == isinstance(layer, Conv2d)
        grads = torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()])
        with torch.no_grad():
            found.append([out, layer(x), *grads])
        assert all(one.is_contiguous() for one in found[-1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_strided_gradients_and_frozen_parts() -> None:
    for frozen in ("", "x", "weight", "bias"):
        x, found = drawn(4, 6, 5, 7).requires_grad_(frozen != "x"), []
        for layer in both(6):
            if frozen in ("weight", "bias"):
                getattr(layer, frozen).requires_grad_(False)
            wanted = [one for one in (x, *layer.parameters()) if one.requires_grad]
            found.append(torch.autograd.grad((layer(x).mT.flatten(1) ** 2).sum(), wanted))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


def test_second_derivatives() -> None:
    x, found = drawn(4, 3, 2, 3), []
    for layer in both(3):
        wanted = [x, *layer.parameters()]
        first = torch.autograd.grad(layer(x).pow(3).sum(), wanted, create_graph=True)
        found.append(torch.autograd.grad(sum(one.square().sum() for one in first), wanted))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_single_image_with_one_and_several_threads() -> None:
    before, x = torch.get_num_threads(), drawn(1, 6, 20, 20)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours, plain = (layer(x) for layer in both(6))
            assert (ours.grad_fn.name() == FOLDED) == (threads == 2)
            torch.testing.assert_close(ours, plain)
            assert ours.stride() == plain.stride()
    finally:
        torch.set_num_threads(before)


def test_keeps_what_torch_keeps() -> None:
    x = drawn(4, 6, 7, 7)
    ours, plain = (kept_bytes(layer(x)) for layer in both(6))
    assert ours == plain


def test_what_is_left_to_torch() -> None:
    """Batches too small or too large to gain, large maps, other layouts, steps and types."""
    x, weight = torch.randn(4, 6, 7, 7), torch.randn(5, 6, 1, 1)
    assert folds(x, weight, HOW)
    others = [
        x[:3],
        torch.randn(4, 6, 8, 9),
        torch.randn(21, 6, 7, 7),
        x.to(memory_format=torch.channels_last),
        x.mT,
        x.half(),
        x.double(),
        x.to("meta"),
        x[:0],
    ]
    assert not any(folds(one, weight, HOW) for one in others)
    assert not folds(x, torch.randn(5, 6, 1, 3), HOW)
    assert not folds(x, weight, ((2, 1), *HOW[1:]))
    with pytest.raises(RuntimeError, match="to have 6 channels, but got 7"):
        Conv2d(6, 5, 1)(torch.randn(4, 7, 7, 7))
    with torch.autocast("cpu", torch.bfloat16):
        assert Conv2d(6, 5, 1)(x).dtype == torch.bfloat16


def test_transforms_counters_and_compilers_see_a_convolution() -> None:
    ours, plain = both(6)
    x = drawn(4, 6, 7, 7).detach()
    with FlopCounterMode(display=False) as count:
        ours(x)
    assert count.get_total_flops() == 2 * 4 * 5 * 6 * 49
    want = plain(x)
    torch.testing.assert_close(torch.func.vmap(ours)(x[None])[0], want)
    torch.testing.assert_close(torch.compile(ours, backend="eager", fullgraph=True)(x), want)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(ours(forward_ad.make_dual(x, x))).tangent
    torch.testing.assert_close(tangent, want - plain.bias[:, None, None])
    exported = torch.export.export(ours, (x,)).module()
    torch.testing.assert_close(exported(x), want)
