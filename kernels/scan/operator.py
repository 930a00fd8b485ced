"""Linear recurrences: checks and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backends import choose
from . import reference
from . import torch as plain


def scan(
    a: Tensor, b: Tensor, *, initial: Tensor | None = None, reverse: bool = False, backend: str | None = None
) -> Tensor:
    """``h[t] = a[t] * h[t - 1] + b[t]``, element by element.

    Args:
        a, b: (B, T, ...).
        initial: the state before the first step, (B, ...); None is zero.
        reverse: run from the last position to the first: ``h[t] = a[t] * h[t + 1] + b[t]``.
        backend: "reference", "torch" or None to choose.

    Returns:
        (B, T, ...).

    Raises:
        ValueError: shapes that do not fit each other, or an unknown backend.
    """
    if a.shape != b.shape or a.dim() < 2:
        raise ValueError(f"a and b must be (B, T, ...) alike, got {tuple(a.shape)} and {tuple(b.shape)}")
    if initial is not None and initial.shape != (b.shape[0], *b.shape[2:]):
        raise ValueError(f"initial of shape {tuple(initial.shape)} must be {(b.shape[0], *b.shape[2:])}")
    name = choose("scan", backend, {"reference": None, "torch": None}).backend
    if b.numel() == 0:
        return torch.zeros_like(b)
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
    ``silu(gate)``.

    Args:
        u, delta: (B, T, D); delta is positive (after its softplus).
        decay: A, (D, N), negative for a stable layer.
        read_in, read_out: B and C, (B, T, N).
        skip: D, (D,).
        gate: z, (B, T, D).
        state: the state before the first step, (B, D, N).
        reverse: run from the last position to the first.
        return_state: also return the state after the last step taken.
        backend: "reference", "torch" or None to choose. The torch backend holds all states, B * T * D * N
        numbers.

    Returns:
        (B, T, D), with ``return_state`` also (B, D, N).

    Raises:
        ValueError: shapes that do not fit each other, or an unknown backend.
    """
    _check_selective(u, delta, decay, read_in, read_out, skip, gate, state)
    rate = (delta.unsqueeze(-1) * decay).exp()  # [B, T, D, N]
    drive = (delta * u).unsqueeze(-1) * read_in.unsqueeze(2)
    states = scan(rate, drive, initial=state, reverse=reverse, backend=backend)
    out = (states @ read_out.unsqueeze(-1)).squeeze(-1)
    if skip is not None:
        out = out + skip * u
    if gate is not None:
        out = out * F.silu(gate)
    return (out, states[:, 0 if reverse else -1]) if return_state else out


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
    if u.dim() != 3 or decay.dim() != 2:
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
