"""From the weights of windows to one filter per position, and back: the two halves of outlook attention.

Window ``p`` writes its tap ``i`` at ``q = p * s - before + i`` and reads its tap ``j`` at distance ``j - i``
from there. So the filter of ``q`` at distance ``j - i`` is the sum of ``weight[i, j]`` over the windows and
taps that write ``q``. Both directions are sums over slices, and each is the other's gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ..registering import operator
from .dynamic_places import Run
from .dynamic_registered import axes

Place = tuple[int, int, Run, Run]


def _places(size: list[int], windows: list[int], geometry: list[int]) -> Iterator[Place]:
    """Both coordinates of every written tap, and the runs from windows to the positions that it writes."""
    rows, columns = axes(geometry, "zero", size, windows)
    for i in range(rows.kernel):
        for j in range(columns.kernel):
            for down in rows.runs(i):
                for across in columns.runs(j):
                    yield i, j, down, across


def _views(weight: Tensor, filters: Tensor, geometry: list[int]) -> tuple[Tensor, Tensor]:
    """Weights (B, G, kh, kw, kh, kw, h, w) and filters (B, G, 2 kh - 1, 2 kw - 1, H, W)."""
    kh, kw = geometry[:2]
    apart = weight.unflatten(3, (kh, kw)).unflatten(2, (kh, kw))
    return apart, filters.unflatten(2, (2 * kh - 1, 2 * kw - 1))


@operator("graphrec::outlook_filters")
def gather_filters(weight: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    """Filters (B, G, (2 kh - 1) * (2 kw - 1), *size) of weights (B, G, kh * kw, kh * kw, h, w)."""
    kh, kw = geometry[:2]
    filters = weight.new_zeros(*weight.shape[:2], (2 * kh - 1) * (2 * kw - 1), *size)
    given, taken = _views(weight, filters, geometry)
    for i, j, down, across in _places(size, list(weight.shape[4:]), geometry):
        square = taken[:, :, kh - 1 - i : 2 * kh - 1 - i, kw - 1 - j : 2 * kw - 1 - j]
        square[..., down.inputs, across.inputs] += given[:, :, i, j][..., down.outputs, across.outputs]
    return filters


@gather_filters.register_fake
def _(weight: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    count = (2 * geometry[0] - 1) * (2 * geometry[1] - 1)
    return weight.new_empty(*weight.shape[:2], count, *size)


@operator("graphrec::outlook_weights")
def spread_filters(filters: Tensor, windows: list[int], geometry: list[int]) -> Tensor:
    """The gradient of :func:`gather_filters`: every window's weights from the filters that they went into."""
    kh, kw = geometry[:2]
    weight = filters.new_zeros(*filters.shape[:2], kh * kw, kh * kw, *windows)
    taken, given = _views(weight, filters, geometry)
    for i, j, down, across in _places(list(filters.shape[3:]), windows, geometry):
        square = given[:, :, kh - 1 - i : 2 * kh - 1 - i, kw - 1 - j : 2 * kw - 1 - j]
        taken[:, :, i, j][..., down.outputs, across.outputs] = square[..., down.inputs, across.inputs]
    return weight


@spread_filters.register_fake
def _(filters: Tensor, windows: list[int], geometry: list[int]) -> Tensor:
    taps = geometry[0] * geometry[1]
    return filters.new_empty(*filters.shape[:2], taps, taps, *windows)


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weight, _, ctx.geometry = inputs
    ctx.sizes = list(weight.shape[4:])


def _gather_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return spread_filters(grad, ctx.sizes, ctx.geometry), None, None


gather_filters.register_autograd(_gather_backward, setup_context=_gather_setup)


def _spread_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    filters, _, ctx.geometry = inputs
    ctx.sizes = list(filters.shape[3:])


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return gather_filters(grad, ctx.sizes, ctx.geometry), None, None


spread_filters.register_autograd(_spread_backward, setup_context=_spread_setup)
