"""`ConvNorm` in evaluation, where it calls torch's functions and not its two modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from graphrec.vision.layers import Conv2d, ConvNorm


def settled(*args: int, **kwargs: float) -> ConvNorm:
    """In evaluation, with statistics that are neither zero nor one."""
    torch.manual_seed(0)
    layer = ConvNorm(*args, **kwargs).train()
    for one in layer.parameters():
        nn.init.normal_(one)
    layer(torch.randn(4, args[0], 8, 8))
    return layer.eval()


@pytest.mark.parametrize("args", [(6, 5), (6, 5, 3, 2, 1), (6, 6, 3, 1, 2, 6, 2)])
@pytest.mark.parametrize("shape", [(1, 6, 9, 9), (5, 6, 7, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_its_modules(args: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, x = settled(*args).to(dtype), torch.randn(shape, dtype=dtype)
    with torch.no_grad():
        found, want = layer(x), layer.bn(layer.c(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x), layer.bn(layer.c(x)))
    assert torch.equal(found, want)
    assert found.stride() == want.stride()


def test_its_modules_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, seen = settled(6, 5), torch.randn(1, 6, 4, 4), []
    for kind in (Conv2d, nn.BatchNorm2d):
        monkeypatch.setattr(kind, "forward", lambda _, x: seen.append(x) or x)
    with torch.no_grad():
        layer(x)
    assert not seen
    layer(x)
    assert len(seen) == 2


def _hook(layer: ConvNorm, seen: list[str]) -> None:
    layer.bn.register_forward_hook(lambda *_: seen.append("bn"))


def _pre_hook(layer: ConvNorm, seen: list[str]) -> None:
    layer.c.register_forward_pre_hook(lambda *_: seen.append("c"))


def _method(layer: ConvNorm, seen: list[str]) -> None:
    forward = layer.c.forward
    layer.c.forward = lambda x: seen.append("c") or forward(x)


@pytest.mark.parametrize("observe", [_hook, _pre_hook, _method])
def test_what_hangs_on_its_modules_runs(observe: Callable[[ConvNorm, list[str]], None]) -> None:
    layer, x, seen = settled(6, 5), torch.randn(1, 6, 4, 4), []
    with torch.no_grad():
        want = layer(x)
        observe(layer, seen)
        assert torch.equal(layer(x), want)
    assert len(seen) == 1


def test_hooks_of_all_modules_run() -> None:
    layer, seen = settled(6, 5), []
    handle = register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        with torch.no_grad():
            layer(torch.randn(1, 6, 4, 4))
    finally:
        handle.remove()
    assert seen == [Conv2d, nn.BatchNorm2d, ConvNorm]


def test_modules_that_were_changed() -> None:
    """A norm that trains, or has no statistics; other padding, a bias, or another class of convolution."""

    def training(layer: ConvNorm) -> None:
        layer.bn.train()

    def statistics(layer: ConvNorm) -> None:
        layer.bn = nn.BatchNorm2d(5, track_running_stats=False).eval()

    def padding(layer: ConvNorm) -> None:
        layer.c = Conv2d(6, 5, 3, padding=1, padding_mode="reflect")

    def bias(layer: ConvNorm) -> None:
        layer.c = Conv2d(6, 5, 3, padding="same")

    def other(layer: ConvNorm) -> None:
        layer.c = nn.Sequential(nn.Conv2d(6, 5, 1), nn.ReLU())

    x = torch.randn(2, 6, 6, 6)
    for change in (training, statistics, padding, bias, other):
        layer = settled(6, 5)
        change(layer)
        with torch.no_grad():
            assert torch.equal(layer(x), layer.bn(layer.c(x)))
    with torch.no_grad(), pytest.raises(ValueError, match="expected 4D input"):
        settled(6, 5)(torch.randn(6, 4, 4))


def test_weights_by_functional_call() -> None:
    layer, x = settled(6, 5), torch.randn(1, 6, 4, 4)
    doubled: dict[str, Tensor] = {"c.weight": 2 * layer.c.weight.detach(), "bn.bias": layer.bn.bias + 1}
    with torch.no_grad():
        found = torch.func.functional_call(layer, doubled, x)
        want = layer.bn(2 * layer.c(x)) + 1
    torch.testing.assert_close(found, want)
