"""Linear attention: checks, normaliser and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..backends import choose
from . import reference
from . import torch as plain


@overload
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = ...,
    normalize: bool = ...,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    chunk: int = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = ...,
    normalize: bool = ...,
    state: Tensor | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    normalize: bool = False,
    state: Tensor | None = None,
    return_state: bool = False,
    chunk: int = 64,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """``out[t] = q[t] @ sum(k[s]^T v[s])`` over all s, or s <= t (Katharopoulos et al., arXiv:2006.16236, eq.
    4 to 12).

    The caller applies the feature map to q and k, and the scale; both are often ``elu(x) + 1``.

    Args:
        q, k: (B, H, T, K).
        v: (B, H, T, V).
        causal: whether a position sees only itself and what came before.
        normalize: divide by ``q[t] @ sum(k[s])``; a position where that is zero gives 0.
        state: what came before, (B, H, K, V), or (B, H, K, V + 1) with ``normalize``, whose last column sums
        k. return_state: also return the state after the last position. chunk: positions per chunk of the
        causal form; it changes rounding only. backend: "reference", "torch" or None to choose.

    Returns:
        (B, H, T, V), with ``return_state`` also the state.

    Raises:
        ValueError: shapes that do not fit each other, ``chunk`` below 1, or an unknown backend.
    """
    _check(q, k, v, normalize, state, chunk)
    if normalize:
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    name = choose("linear_attention", backend, {"reference": None, "torch": None}).backend
    if name == "reference":
        out, final = reference.linear_attention(q, k, v, causal, state)
    else:
        out, final = plain.linear_attention(q, k, v, causal, state, chunk)
    if normalize:
        total = out[..., -1:]
        zero = total == 0
        out = (out[..., :-1] / total.masked_fill(zero, 1)).masked_fill(zero, 0)
    return (out, final) if return_state else out


def _check(q: Tensor, k: Tensor, v: Tensor, normalize: bool, state: Tensor | None, chunk: int) -> None:
    if q.dim() != 4 or k.shape != q.shape or v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        found = ", ".join(str(tuple(one.shape)) for one in (q, k, v))
        raise ValueError(f"q, k and v must be (B, H, T, K), (B, H, T, K) and (B, H, T, V), got {found}")
    want = (*q.shape[:2], q.shape[3], v.shape[3] + normalize)
    if state is not None and tuple(state.shape) != want:
        raise ValueError(f"state of shape {tuple(state.shape)} must be {want}")
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1")
