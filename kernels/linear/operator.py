"""Linear attention: checks, normaliser and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..backends import Choice, choose, triton_refusal
from . import reference
from . import torch as plain
from .checks import check_inputs, first_state


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
    4 to 12; https://github.com/idiap/fast-transformers).

    The caller applies the feature map to q and k, and the scale; both are often ``elu(x) + 1``.

    Args:
        q, k: (B, H, T, K).
        v: (B, H, T, V).
        causal: whether a position sees only itself and what came before.
        normalize: divide by ``q[t] @ sum(k[s])``; a position where that is zero gives 0.
        state: what came before, (B, H, K, V), or (B, H, K, V + 1) with ``normalize``, whose last column sums
            k.
        return_state: also return the state after the last position.
        chunk: positions per chunk of the torch backend's causal form, rounded up to a power of two; it
            changes rounding only.
        backend: "reference", "torch", "triton" (causal only) or None to choose.

    Returns:
        (B, H, T, V), with ``return_state`` also the state, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other, ``chunk`` below 1, or a backend that
            cannot run.
    """
    check_inputs(q, k, v, chunk)
    if normalize:
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    first = first_state(state, q, v)
    name = select(q, k, v, causal, backend).backend
    if name == "triton":
        from .triton import chunked

        out, final = chunked(q, k, v, None, first)
    elif name == "reference":
        out, final = reference.linear_attention(q, k, v, causal, None if state is None else first)
    else:
        out, final = plain.linear_attention(q, k, v, causal, first, chunk)
    if normalize:
        total = out[..., -1:]
        zero = total == 0
        out = (out[..., :-1] / total.masked_fill(zero, 1)).masked_fill(zero, 0)
    return (out, final) if return_state else out


def select(q: Tensor, k: Tensor, v: Tensor, causal: bool, backend: str | None) -> Choice:
    """The backend of :func:`linear_attention`, and why the others were passed over."""
    full = None if causal else "without causal it is two matrix products, which are torch's"
    refusals = {"reference": None, "torch": None, "triton": full or triton_refusal(q, k, v)}
    return choose("linear_attention", backend, refusals)
