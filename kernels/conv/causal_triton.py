"""Short causal filters on CUDA, behind torch operators; see :mod:`.causal_kernels`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backends import interpreting
from ..registering import operator

LONGEST = 16
"""The kernels are unrolled over a filter's taps."""


class _Launch:
    """Sizes of one call in the order of the kernels' arguments, and their constants."""

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, more: int = 0
    ) -> None:
        self.batch, length, width = x.shape
        bt, bd = (32, 32) if interpreting() else (32, 64)
        self.blocks, self.tiles = -(-width // bd), -(-(length + more) // bt)
        self.sizes = (length, width, self.blocks, self.tiles)
        self.grid = (self.batch * self.tiles * self.blocks,)
        self.taps = weight.shape[1]
        self.tile: dict[str, Any] = {"W": self.taps, "BT": bt, "BD": bd, "num_warps": 4}
        self.tile["STATE"] = state is not None and self.taps > 1
        self.weight = weight.t().contiguous()
        self.bias = self.weight if bias is None else bias.contiguous()
        self.state = state if state is not None and self.taps > 1 else x


@operator("graphrec::tile_causal_conv1d")
def tile_causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, silu: bool
) -> Tensor:
    """See :func:`graphrec.kernels.causal_conv1d`; nothing is empty."""
    from . import causal_kernels

    launch = _Launch(x, weight, bias, state)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    causal_kernels.forward[launch.grid](
        x, launch.weight, launch.bias, launch.state, out, *x.stride(), *launch.state.stride(),
        *launch.sizes, BIAS=bias is not None, SILU=silu, **launch.tile,
    )  # fmt: skip
    return out


@tile_causal_conv1d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, silu: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@operator("graphrec::tile_causal_conv1d_backward")
def tile_causal_conv1d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and state; those of what is absent are empty."""
    from . import causal_kernels

    launch = _Launch(x, weight, bias, state)
    batch, width, grad = launch.batch, x.shape[2], grad.contiguous()
    dweight = torch.empty(batch, launch.tiles, launch.taps, width, device=x.device)
    dbias = torch.empty(batch, launch.tiles, width, device=x.device)
    slope = torch.empty(x.shape, device=x.device) if silu else grad
    causal_kernels.grad_filter[launch.grid](
        grad, x, launch.weight, launch.bias, launch.state, slope, dweight, dbias,
        *x.stride(), *launch.state.stride(), *launch.sizes, BIAS=bias is not None, SILU=silu, **launch.tile,
    )  # fmt: skip
    dx, dstate = _fresh(x), x.new_empty(0) if state is None else _fresh(state)
    launch = _Launch(x, weight, bias, state, more=launch.taps - 1 if state is not None else 0)
    causal_kernels.grad_input[launch.grid](slope, launch.weight, dx, dstate, *launch.sizes, **launch.tile)
    made = dweight.sum((0, 1)).t().contiguous().to(weight.dtype)
    return dx, made, x.new_empty(0) if bias is None else dbias.sum((0, 1)).to(bias.dtype), dstate


def _fresh(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@tile_causal_conv1d_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    none = x.new_empty(0)
    return (
        _fresh(x),
        _fresh(weight),
        none if bias is None else _fresh(bias),
        none if state is None else _fresh(state),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, state, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias, state)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    given = ctx.saved_tensors
    found = tile_causal_conv1d_backward(grad, *given, ctx.silu)
    return *(None if x is None else one for x, one in zip(given, found, strict=True)), None


tile_causal_conv1d.register_autograd(_backward, setup_context=_setup)
