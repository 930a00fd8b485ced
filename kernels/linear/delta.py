"""The delta rule: checks and choice of backend."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from ..backends import choose
from . import delta_torch, reference
from .checks import check_gate, check_inputs, first_state


@overload
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
    chunk: int = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[True],
    chunk: int = ...,
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
    chunk: int = 64,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """A state that corrects what it holds under a key instead of adding to it.

    ``S[t] = a S[t - 1] + beta[t] k[t]^T (v[t] - k[t] a S[t - 1])`` with ``a = exp(log_decay[t])``, ``out[t] =
    q[t] S[t]``: DeltaNet (arXiv:2406.06484, eq. 3 and section 3), with a decay Gated DeltaNet
    (arXiv:2412.06464, eq. 10; https://github.com/NVlabs/GatedDeltaNet).

    Args:
        q, k: (B, H, T, K); the caller applies the scale, and normalises keys to length 1, without which a
            ``beta`` up to 1 may not keep the state bounded.
        v: (B, H, T, V).
        beta: (B, H, T), of any floating dtype: how much of the difference is written.
        log_decay: (B, H, T), of any floating dtype, at most 0; None is no decay.
        state: the state before the first position, (B, H, K, V).
        return_state: also return the state after the last position.
        chunk: positions per chunk of the torch backend, rounded up to a power of two; changes rounding only.
        backend: "reference", "torch" or None to choose.

    Returns:
        (B, H, T, V), with ``return_state`` also (B, H, K, V), float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other, ``chunk`` below 1, or an unknown
            backend.
    """
    check_inputs(q, k, v, chunk)
    check_gate("beta", beta, v, ())
    if log_decay is not None:
        check_gate("log_decay", log_decay, v, ())
    first = first_state(state, q, v)
    if choose("delta_rule", backend, {"reference": None, "torch": None}).backend == "reference":
        wide = [one.to(first.dtype) for one in (q, k, v, beta)]
        decay = None if log_decay is None else log_decay.to(first.dtype)
        out, final = reference.delta_rule(wide[0], wide[1], wide[2], wide[3], decay, first)
        out = out.to(v.dtype)
    else:
        out, final = delta_torch.delta_rule(q, k, v, beta, log_decay, first, chunk)
    return (out, final) if return_state else out
