"""Causal linear attention on CUDA, with any decay, behind torch operators; see :mod:`.triton_kernels`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..registering import operator
from .settings import NONE, SCALAR, VECTOR, LinearConfig, linear_config


def chunked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, V) and the state after the last position, float32 (B, H, K, V)."""
    out, final, _ = chunk_linear(q, k, v, log_decay, state)
    return out, final


class _Launch(NamedTuple):
    """What the kernels of one call share."""

    config: LinearConfig
    decay: int
    chunks: int
    k_tiles: int
    v_tiles: int

    def settings(self, dtype: torch.dtype) -> dict[str, Any]:
        """Constant arguments of all kernels."""
        return {
            "DECAY": self.decay,
            "C": self.config.chunk,
            "BK": self.config.bk,
            "BV": self.config.bv,
            "PRECISION": "tf32x3" if dtype == torch.float32 else "tf32",
            "INTERPRET": interpreting(),
            "num_warps": self.config.warps,
            "num_stages": self.config.stages,
        }

    def levels(self) -> int:
        """How often a chunk halves."""
        return self.config.chunk.bit_length() - 1


def _plan(q: Tensor, v: Tensor, log_decay: Tensor | None) -> _Launch:
    dim, v_dim = q.shape[3], v.shape[3]
    decay = NONE if log_decay is None else SCALAR if log_decay.shape[3] == 1 else VECTOR
    config = linear_config(dim, v_dim, q.dtype, decay, interpreting())
    sizes = ((q.shape[2], config.chunk), (dim, config.bk), (v_dim, config.bv))
    return _Launch(config, decay, *(-(-size // tile) for size, tile in sizes))


def _decays(q: Tensor, log_decay: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
    """A pointer for the decays, and their strides."""
    return (q, (0, 0, 0, 0)) if log_decay is None else (log_decay, log_decay.stride())


def _all_states(k: Tensor, v: Tensor, log_decay: Tensor | None, first: Tensor, back: bool) -> Tensor:
    """States around all chunks, float32 (B, H, N + 1, K, V)."""
    from . import triton_kernels

    launch, (batch, heads, length, v_dim), dim = _plan(k, v, log_decay), v.shape, k.shape[3]
    out = torch.empty(batch, heads, launch.chunks + 1, dim, v_dim, dtype=torch.float32, device=v.device)
    decay, steps = _decays(k, log_decay)
    triton_kernels.states[(batch * heads * launch.k_tiles * launch.v_tiles,)](
        k, v, decay, first.contiguous(), out, *k.stride(), *v.stride(), *steps, heads, heads // k.shape[1],
        length, launch.chunks, launch.k_tiles, launch.v_tiles, dim, v_dim,
        BACK=back, **launch.settings(v.dtype),
    )  # fmt: skip
    return out


@operator("graphrec::chunk_linear")
def chunk_linear(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state and all states (which have no gradient).

    Args:
        q, k: (B, G, T, K), with G a divisor of H.
        v: (B, H, T, V).
        log_decay: (B, H, T, 1 or K).
        state: float32 (B, H, K, V).
    """
    from . import triton_kernels

    launch, (batch, heads, length, v_dim), dim = _plan(q, v, log_decay), v.shape, q.shape[3]
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    if out.numel() == 0 or dim == 0:
        return out.zero_(), state.clone(), state.new_empty(0)
    every = _all_states(k, v, log_decay, state, back=False)
    decay, steps = _decays(q, log_decay)
    triton_kernels.output[(batch * heads * launch.chunks * launch.v_tiles,)](
        q, k, v, decay, every, out, *q.stride(), *k.stride(), *v.stride(), *steps,
        heads, heads // q.shape[1], length, launch.chunks, launch.v_tiles, dim, v_dim,
        LEVELS=launch.levels(), **launch.settings(v.dtype),
    )  # fmt: skip
    return out, every[:, :, -1].clone(memory_format=torch.contiguous_format), every


@chunk_linear.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    out, final = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (v, state))
    if out.numel() == 0 or q.shape[3] == 0:
        return out, final, state.new_empty(0)
    chunks = _plan(q, v, log_decay).chunks
    return out, final, state.new_empty(*v.shape[:2], chunks + 1, q.shape[3], v.shape[3])


@operator("graphrec::chunk_linear_backward")
def chunk_linear_backward(
    grad: Tensor, grad_final: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, every: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay (empty without one) and the first state."""
    from . import triton_backward

    launch, (batch, heads, length, v_dim), dim = _plan(q, v, log_decay), v.shape, q.shape[3]
    share, grad = heads // q.shape[1], grad.contiguous()
    after = _all_states(q, grad, log_decay, grad_final, back=True)
    kind = q.dtype if share == 1 else torch.float32
    dq, dk = (torch.empty(batch, heads, length, dim, dtype=kind, device=q.device) for _ in "qk")
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    parts = {NONE: 0, SCALAR: launch.k_tiles, VECTOR: dim}[launch.decay]
    dg = torch.empty(batch, heads, length, parts, dtype=torch.float32, device=q.device)
    decay, steps = _decays(q, log_decay)
    sizes = (heads, share, length, launch.chunks)
    options = {"LEVELS": launch.levels(), **launch.settings(v.dtype)}
    triton_backward.backward_v[(batch * heads * launch.chunks * launch.v_tiles,)](
        q, k, grad, decay, after, dv, *q.stride(), *k.stride(), *steps,
        *sizes, launch.v_tiles, dim, v_dim, **options,
    )  # fmt: skip
    triton_backward.backward_qk[(batch * heads * launch.chunks * launch.k_tiles,)](
        q, k, v, decay, grad, every, after, dq, dk, dg, *q.stride(), *k.stride(), *v.stride(), *steps,
        *sizes, launch.k_tiles, dim, v_dim, **{**options, "num_warps": launch.config.back_warps},
    )  # fmt: skip
    if share > 1:
        dq, dk = (one.unflatten(1, (-1, share)).sum(2).to(q.dtype) for one in (dq, dk))
    if log_decay is not None:
        dg = (dg.sum(-1, keepdim=True) if launch.decay == SCALAR else dg).to(log_decay.dtype)
    return dq, dk, dv, dg, after[:, :, 0].clone(memory_format=torch.contiguous_format)


@chunk_linear_backward.register_fake
def _(
    grad: Tensor, grad_final: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, every: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv, first = (
        torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v, grad_final)
    )
    if log_decay is None:
        return dq, dk, dv, first.new_empty(*v.shape[:3], 0), first
    return dq, dk, dv, torch.empty(log_decay.shape, dtype=log_decay.dtype, device=v.device), first


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], output[2])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, grad: Tensor, grad_final: Tensor, _: Tensor) -> tuple[Any, ...]:
    q, k, v, log_decay, every = ctx.saved_tensors
    if every.numel() == 0:
        zeros = [None if one is None else torch.zeros_like(one) for one in (q, k, v, log_decay)]
        return *zeros, grad_final
    dq, dk, dv, dg, first = chunk_linear_backward(
        grad.to(v.dtype), grad_final.float(), q, k, v, log_decay, every
    )
    return dq, dk, dv, None if log_decay is None else dg, first


chunk_linear.register_autograd(_backward, setup_context=_setup)
