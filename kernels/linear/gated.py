"""Linear attention whose state decays: checks, both directions and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor
from torch.nn import functional as F

from ..backends import choose, triton_refusal
from . import reference
from . import torch as plain
from .checks import check_gate, check_inputs, first_state


@overload
def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    causal: bool = ...,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    chunk: int = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    causal: bool = ...,
    state: Tensor | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    causal: bool = True,
    state: Tensor | None = None,
    return_state: bool = False,
    chunk: int = 64,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """``S[t] = exp(log_decay[t]) S[t - 1] + k[t]^T v[t]``, ``out[t] = q[t] S[t]``.

    One decay per head and position is RetNet (arXiv:2307.08621, eq. 5 to 7; constant over positions) and
    Mamba-2 (arXiv:2405.21060, section 6; ``k`` is B, ``q`` is C, ``v`` is the step size times x;
    https://github.com/state-spaces/mamba). One per dimension of a key as well is GLA (arXiv:2312.06635, eq. 3
    and 4; https://github.com/fla-org/flash-linear-attention).

    Args:
        q, k: (B, G, T, K); every head of q and k serves H / G heads of v, as the groups of Mamba-2 do. The
            caller applies the scale.
        v: (B, H, T, V).
        log_decay: (B, H, T) or (B, H, T, K), of any floating dtype, at most 0; -inf forgets all that came
            before. Views that repeat a value (``expand``) are fine. Above 0 a state grows and may overflow.
        causal: False sees both ways: a pair s < t, whichever is the query, has the decays of s < r <= t.
        state: the state before the first position, (B, H, K, V); causal only.
        return_state: also return the state after the last position; causal only.
        chunk: positions per chunk of the torch backend, rounded up to a power of two; changes rounding only.
        backend: "reference", "torch", "triton" or None to choose.

    Returns:
        (B, H, T, V), with ``return_state`` also (B, H, K, V), float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other, a state without ``causal``,
            ``chunk`` below 1, or a backend that cannot run.
    """
    check_inputs(q, k, v, chunk, share=True)
    check_gate("log_decay", log_decay, v, (q.shape[3],) if log_decay.dim() == 4 else ())
    if not causal and (state is not None or return_state):
        raise ValueError("causal=False has no state: state must be None and return_state False")
    first = first_state(state, q, v)
    refusals = {"reference": None, "torch": None, "triton": triton_refusal(q, k, v)}
    name = choose("gated_linear_attention", backend, refusals).backend
    if log_decay.dim() == 3:
        log_decay = log_decay.unsqueeze(-1)

    def run(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
        if name == "triton":
            from .triton import chunked

            return chunked(q, k, v, log_decay, first)
        if name == "torch":
            return plain.gated_linear_attention(q, k, v, log_decay, first, chunk)
        q, k, log_decay = (one.to(first.dtype) for one in (q, k, log_decay))
        q, k = plain.shared(q, v.shape[1]), plain.shared(k, v.shape[1])
        out, final = reference.gated_linear_attention(q, k, v.to(first.dtype), log_decay, first)
        return out.to(v.dtype), final

    out, final = run(q, k, v, log_decay)
    if not causal:
        later = F.pad(log_decay[:, :, 1:], (0, 0, 0, min(1, log_decay.shape[2])))
        back, _ = run(*(one.flip(2) for one in (q, k, v, later)))
        own = plain.shared((q * k).sum(-1, keepdim=True), v.shape[1])
        out = out + back.flip(2) - own * v
    return (out, final) if return_state else out
