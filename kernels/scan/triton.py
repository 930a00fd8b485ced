"""The linear recurrence on CUDA, behind torch operators; see :mod:`.triton_kernels`."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..registering import operator
from .settings import ScanConfig, scan_config, splits


def scan(a: Tensor, b: Tensor, initial: Tensor | None, reverse: bool) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]`` along axis 1 of (B, T, ...)."""
    flat = (*b.shape[:2], prod(b.shape[2:]))
    first = b.new_zeros(flat[0], flat[2]) if initial is None else initial.reshape(flat[0], flat[2])
    out: Tensor = tile_scan(a.reshape(flat), b.reshape(flat), first, reverse)
    return out.view(b.shape)


class _Launch(NamedTuple):
    """How a sequence is cut: splits, and tiles in each."""

    config: ScanConfig
    blocks: int
    splits: int
    tiles: int

    def grid(self, batch: int) -> tuple[int]:
        return (batch * self.splits * self.blocks,)

    def settings(self, back: bool) -> dict[str, Any]:
        return {
            "BACK": back,
            "BT": self.config.bt,
            "BD": self.config.bd,
            "num_warps": self.config.warps,
        }


def _plan(batch: int, length: int, width: int) -> _Launch:
    config = scan_config(width, interpreting())
    tiles, blocks = -(-length // config.bt), config.blocks(width)
    parts = splits(batch * blocks, tiles)
    each = -(-tiles // parts)
    return _Launch(config, blocks, -(-tiles // each), each)


def _in_front(a: Tensor, b: Tensor, first: Tensor, launch: _Launch, shift: int, back: bool) -> Tensor:
    """The state in front of every split, (B, splits, D); float32 where there is more than one."""
    from . import triton_kernels

    if launch.splits == 1:
        return first.unsqueeze(1).contiguous()
    batch, length, width = b.shape
    decay, end = (
        torch.empty(batch, launch.splits, width, dtype=torch.float32, device=b.device) for _ in "12"
    )
    triton_kernels.ends[launch.grid(batch)](
        a, b, decay, end, *a.stride(), *b.stride(), length, width, launch.blocks, launch.splits, launch.tiles,
        SHIFT=shift, **launch.settings(back),
    )  # fmt: skip
    front = torch.empty_like(end)
    front[:, 0] = first
    if launch.splits > 1:
        front[:, 1:] = states(decay[:, :-1], end[:, :-1], first, False, alone=True)
    return front


def states(a: Tensor, b: Tensor, first: Tensor, back: bool, alone: bool = False) -> Tensor:
    """The recurrence on (B, T, D) from a first state (B, D). ``alone``: one program for a whole sequence."""
    from . import triton_kernels

    batch, length, width = b.shape
    launch = _plan(batch, length, width)
    if alone:
        launch = launch._replace(splits=1, tiles=launch.splits * launch.tiles)
    out = torch.empty(b.shape, dtype=b.dtype, device=b.device)
    front = _in_front(a, b, first, launch, 0, back)
    triton_kernels.forward[launch.grid(batch)](
        a, b, front, out, *a.stride(), *b.stride(),
        length, width, launch.blocks, launch.splits, launch.tiles, **launch.settings(back),
    )  # fmt: skip
    return out


@operator("graphrec::tile_scan")
def tile_scan(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The recurrence on (B, T, D), none of them 0, from a first state (B, D)."""
    return states(a, b, first, reverse)


@tile_scan.register_fake
def _(a: Tensor, b: Tensor, first: Tensor, reverse: bool) -> Tensor:
    return torch.empty(b.shape, dtype=b.dtype, device=b.device)


@operator("graphrec::tile_scan_backward")
def tile_scan_backward(
    grad: Tensor, a: Tensor, out: Tensor, first: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of a and b, float32 sums in their dtype."""
    from . import triton_kernels

    batch, length, width = out.shape
    launch = _plan(batch, length, width)
    da = torch.empty(out.shape, dtype=a.dtype, device=a.device)
    db = torch.empty(out.shape, dtype=out.dtype, device=out.device)
    start = torch.zeros(batch, width, dtype=torch.float32, device=out.device)
    later = _in_front(a, grad, start, launch, 1, not reverse)
    triton_kernels.backward[launch.grid(batch)](
        a, grad, out.contiguous(), first.contiguous(), later, da, db, *a.stride(), *grad.stride(),
        length, width, launch.blocks, launch.splits, launch.tiles, **launch.settings(not reverse),
    )  # fmt: skip
    return da, db


@tile_scan_backward.register_fake
def _(grad: Tensor, a: Tensor, out: Tensor, first: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    made = [torch.empty(out.shape, dtype=one.dtype, device=one.device) for one in (a, out)]
    return made[0], made[1]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, _, first, ctx.reverse = inputs
    ctx.save_for_backward(a, output, first)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, out, first = ctx.saved_tensors
    da, db = tile_scan_backward(grad, a, out, first, ctx.reverse)
    start = -1 if ctx.reverse else 0
    return da, db, (a[:, start] * db[:, start]).to(first.dtype), None


tile_scan.register_autograd(_backward, setup_context=_setup)
