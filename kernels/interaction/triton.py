"""Attention among fields on CUDA: the tile kernels behind torch operators.

The projection of an interacting layer is a plain product before the kernel, and its gradients are plain
products after it; splitting into heads, ReLU, residual and the last ReLU happen inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import interpreting
from ..configs import field_config, padded
from ..registering import operator


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, H, F, Dv); memory is (B, F, H, Dv)."""
    return field_tiles(*(_dense(one) for one in (q, k, v)), scale).transpose(1, 2)


def interacting_layer(
    x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, scale: float, residual: bool, rectify: bool
) -> Tensor:
    """(B, F, h d'); see :func:`graphrec.kernels.interacting_layer`."""
    projected = F.linear(x, weight, bias)
    return interacting_tiles(projected, heads, scale, residual, rectify).flatten(2)


def _dense(x: Tensor) -> Tensor:
    """The tensor, copied if its last dimension is not."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()


def _steps(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(step for one in tensors for step in one.stride()[:3])


def _settings(like: Tensor, v_dim: int, tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    """Launch settings and constant arguments for problems of the shape of ``like`` (B, H, F, D)."""
    config = field_config(like.shape[2], max(like.shape[3], v_dim), like.dtype, interpreting())
    far = max(one.shape[2] * abs(one.stride(2)) + one.shape[3] for one in tensors)
    return {
        "COUNT": config.count,
        "BN": padded(like.shape[2]),
        "BD": padded(like.shape[3]),
        "BE": padded(v_dim),
        "PRECISION": "tf32x3" if like.dtype == torch.float32 else "tf32",
        "INTERPRET": interpreting(),
        "WIDE": far >= 1 << 31,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def _launch(
    name: str, tensors: tuple[Tensor, ...], like: Tensor, v_dim: int, scale: float, **constants: bool
) -> None:
    """Run a kernel over all heads of all rows; ``tensors`` (B, H, F, ...) are its pointers in order."""
    from . import triton_kernels

    batch, heads, fields, dim = like.shape
    if batch * heads * fields == 0:
        return
    settings = _settings(like, v_dim, tensors)
    programs = -(-batch * heads // settings["COUNT"])
    getattr(triton_kernels, name)[(programs,)](
        *tensors, *_steps(*tensors), scale, batch * heads, heads, fields, dim, v_dim, **constants, **settings
    )


@operator("graphrec::field_tiles")
def field_tiles(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Output (B, F, H, Dv) of q, k (B, H, F, D) and v (B, H, F, Dv)."""
    batch, heads, fields, _ = q.shape
    out = q.new_empty(batch, fields, heads, v.shape[3])
    tensors = (q, k, v, v, out.transpose(1, 2))
    _launch("forward", tensors, q, v.shape[3], scale, RECTIFY=False, FINISH=False, RESIDUAL=False)
    return out


@field_tiles.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])


@operator("graphrec::field_tiles_backward")
def field_tiles_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, contiguous; ``grad`` is (B, F, H, Dv)."""
    dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    given = _dense(grad).transpose(1, 2)
    tensors = (q, k, v, v, given, given, dq, dk, dv, dv)
    _launch("backward", tensors, q, v.shape[3], scale, RECTIFY=False, FINISH=False, RESIDUAL=False)
    return dq, dk, dv


@field_tiles_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    return dq, dk, dv


def _field_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


def _field_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *field_tiles_backward(grad, *ctx.saved_tensors, ctx.scale), None


field_tiles.register_autograd(_field_backward, setup_context=_field_setup)


def _split(projected: Tensor, heads: int, parts: int) -> list[Tensor]:
    """Views (B, h, F, d') of a projection (B, F, parts h d')."""
    return [one.transpose(1, 2) for one in projected.unflatten(-1, (parts, heads, -1)).unbind(2)]


@operator("graphrec::interacting_tiles")
def interacting_tiles(projected: Tensor, heads: int, scale: float, residual: bool, rectify: bool) -> Tensor:
    """Output (B, F, h, d') of a projection (B, F, 3 h d' or 4 h d') before ReLU."""
    q, k, v, *rest = _split(projected.contiguous(), heads, 3 + residual)
    out = projected.new_empty(*projected.shape[:2], heads, q.shape[3])
    tensors = (q, k, v, rest[0] if rest else v, out.transpose(1, 2))
    _launch("forward", tensors, q, q.shape[3], scale, RECTIFY=rectify, FINISH=True, RESIDUAL=residual)
    return out


@interacting_tiles.register_fake
def _(projected: Tensor, heads: int, scale: float, residual: bool, rectify: bool) -> Tensor:
    width = projected.shape[2] // ((3 + residual) * heads)
    return projected.new_empty(*projected.shape[:2], heads, width)


@operator("graphrec::interacting_tiles_backward")
def interacting_tiles_backward(
    grad: Tensor, out: Tensor, projected: Tensor, heads: int, scale: float, residual: bool, rectify: bool
) -> Tensor:
    """Gradient of the projection; ``grad`` and ``out`` are (B, F, h, d')."""
    dense = projected.contiguous()
    made = torch.empty(dense.shape, dtype=dense.dtype, device=dense.device)
    q, k, v, *rest = _split(dense, heads, 3 + residual)
    dq, dk, dv, *drest = _split(made, heads, 3 + residual)
    given, result = _dense(grad).transpose(1, 2), out.transpose(1, 2)
    tensors = (q, k, v, rest[0] if rest else v, result, given, dq, dk, dv, drest[0] if drest else dv)
    _launch("backward", tensors, q, q.shape[3], scale, RECTIFY=rectify, FINISH=True, RESIDUAL=residual)
    return made


@interacting_tiles_backward.register_fake
def _(
    grad: Tensor, out: Tensor, projected: Tensor, heads: int, scale: float, residual: bool, rectify: bool
) -> Tensor:
    return torch.empty(projected.shape, dtype=projected.dtype, device=projected.device)


def _layer_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    projected, *ctx.settings = inputs
    ctx.save_for_backward(output, projected)


def _layer_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    dprojected = interacting_tiles_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return dprojected, None, None, None, None


interacting_tiles.register_autograd(_layer_backward, setup_context=_layer_setup)
