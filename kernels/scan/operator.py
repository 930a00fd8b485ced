"""Linear recurrences: checks and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..backends import choose, triton_refusal
from ..checking import check_floating
from . import reference, triton
from . import torch as plain
from .selective import state_dtype
from .selective_torch import selective_scan as blocked_selective_scan
from .selective_triton import tile_selective_scan


def scan(
    a: Tensor, b: Tensor, *, initial: Tensor | None = None, reverse: bool = False, backend: str | None = None
) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]``, element by element.

    Args:
        a, b: (B, T, ...).
        initial: the state before the first step, (B, ...); None is zero.
        reverse: run from the last position to the first: ``h[t] = a[t] * h[t + 1] + b[t]``.
        backend: "reference", "torch", "triton" or None to choose.

    Returns:
        (B, T, ...), in the dtype that ``a`` and ``b`` promote to.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown backend.
    """
    if a.shape != b.shape or a.dim() < 2:
        raise ValueError(f"a and b must be (B, T, ...) alike, got {tuple(a.shape)} and {tuple(b.shape)}")
    if initial is not None and initial.shape != (b.shape[0], *b.shape[2:]):
        raise ValueError(f"initial of shape {tuple(initial.shape)} must be {(b.shape[0], *b.shape[2:])}")
    check_floating(a=a, b=b, initial=initial)
    given = [a, b] if initial is None else [a, b, initial]
    refusals = {"reference": None, "torch": None, "triton": triton_refusal(*given)}
    name = choose("scan", backend, refusals).backend
    if b.numel() == 0:
        return torch.zeros_like(b)
    dtype = torch.promote_types(a.dtype, b.dtype)
    a, b, initial = a.to(dtype), b.to(dtype), None if initial is None else initial.to(dtype)
    if name == "triton":
        return triton.scan(a, b, initial, reverse)
    if reverse:
        a, b = a.flip(1), b.flip(1)
    out = (reference if name == "reference" else plain).scan(a, b, initial)
    return out.flip(1) if reverse else out


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    *,
    skip: Tensor | None = ...,
    gate: Tensor | None = ...,
    state: Tensor | None = ...,
    reverse: bool = ...,
    return_state: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    *,
    skip: Tensor | None = ...,
    gate: Tensor | None = ...,
    state: Tensor | None = ...,
    reverse: bool = ...,
    return_state: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    *,
    skip: Tensor | None = None,
    gate: Tensor | None = None,
    state: Tensor | None = None,
    reverse: bool = False,
    return_state: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The state-space layer of Mamba (arXiv:2312.00752, algorithm 2), with its names A, B, C, D spelled out.

    ``h[t] = exp(delta[t] A) h[t - 1] + delta[t] B[t] u[t]``, ``y[t] = C[t] h[t] + D u[t]``, times
    ``silu(gate)``; ``selective_scan_fn`` of state-spaces/mamba. Training keeps the states in front of some
    positions, no more numbers than ``u`` has, and computes the others again.

    Two directions, as in Vision Mamba (arXiv:2401.09417, algorithm 1), are two calls that add up, since each
    has parameters of its own; ``reverse`` turns nothing around in memory:
    ``selective_scan(u, *forward) + selective_scan(u, *backward, reverse=True)``.

    Args:
        u, delta: (B, T, D); delta is positive (after its softplus). Inputs may differ in dtype: a layer in
            bfloat16 can keep ``decay`` and ``skip`` in float32. Computation is in float32 at least.
        decay: A, (D, N), negative for a stable layer.
        read_in, read_out: B and C, (B, T, N).
        skip: D, (D,).
        gate: z, (B, T, D).
        state: the state before the first step, (B, D, N).
        reverse: run from the last position to the first.
        return_state: also return the state after the last step taken.
        backend: "reference", "torch", "triton" or None to choose.

    Returns:
        (B, T, D) in the dtype of ``u``; with ``return_state`` also (B, D, N), float32 at least.

    Raises:
        ValueError: shapes that do not fit each other, or an unknown backend.
    """
    _check_selective(u, delta, decay, read_in, read_out, skip, gate, state)
    given = (u, delta, decay, read_in, read_out, skip, gate, state)
    refusals = {
        "reference": None,
        "torch": None,
        "triton": triton_refusal(*(one for one in given if one is not None)),
    }
    name = choose("selective_scan", backend, refusals).backend
    if u.numel() == 0:
        final = u.new_zeros(u.shape[0], *decay.shape, dtype=state_dtype(u)) if state is None else state
        out = torch.zeros_like(u)
    elif name == "reference":
        out, final = reference.selective_scan(*given, reverse)
    else:
        run = tile_selective_scan if name == "triton" else blocked_selective_scan
        out, final, _ = run(*given, reverse)
    return (out, final) if return_state else out


def _check_selective(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    state: Tensor | None,
) -> None:
    if u.dim() != 3 or decay.dim() != 2 or decay.shape[1] == 0:
        raise ValueError(
            f"u must be (B, T, D) and decay (D, N), got {tuple(u.shape)} and {tuple(decay.shape)}"
        )
    batch, length, width = u.shape
    inner = decay.shape[1]
    wanted = {
        "delta": (delta, (batch, length, width)),
        "decay": (decay, (width, inner)),
        "read_in": (read_in, (batch, length, inner)),
        "read_out": (read_out, (batch, length, inner)),
        "skip": (skip, (width,)),
        "gate": (gate, (batch, length, width)),
        "state": (state, (batch, width, inner)),
    }
    for name, (given, want) in wanted.items():
        if given is not None and tuple(given.shape) != want:
            raise ValueError(f"{name} of shape {tuple(given.shape)} must be {want}")
    check_floating(u=u, **{name: given for name, (given, _) in wanted.items()})
