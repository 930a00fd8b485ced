"""Softmax attention of batched matrices in plain torch, with a backward that reuses the probabilities.

Autograd would multiply ``q.T @ ds`` for the gradient of the keys, whose long rows make a thin matrix product
three to five times slower than ``ds.T @ q`` on a CPU; and it keeps the logits besides the probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Given = ParamSpec("Given")
Made = TypeVar("Made")


def _slow_types() -> tuple[torch.dtype, ...]:
    """Types whose batched products oneDNN does not take on this processor."""
    asked = (torch.bfloat16, "_is_mkldnn_bf16_supported"), (torch.float16, "_is_mkldnn_fp16_supported")
    there = torch.backends.mkldnn.is_available()
    return tuple(dtype for dtype, name in asked if not (there and getattr(torch.ops.mkldnn, name)()))


_SLOW_TYPES = _slow_types()


def emulated(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies matrices of a dtype number by number."""
    return dtype in _SLOW_TYPES


def as_given(compute: Callable[Given, Made]) -> Callable[Given, Made]:
    """Compute in the dtypes that are there: autocast would narrow what was widened on purpose."""

    @wraps(compute)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        if not torch.is_autocast_enabled("cpu"):
            return compute(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return compute(*args, **kwargs)

    return run


def widened(x: Tensor) -> Tensor:
    """In float32 where the processor multiplies batches of the dtype's matrices number by number.

    torch then takes eight times as long as in float32: oneDNN wants AVX-512 for bfloat16, and its 16-bit
    extension for float16.
    """
    return x.float() if emulated(x.dtype) and x.device.type == "cpu" else x


def probabilities(
    q: Tensor,
    k: Tensor,
    addend: Tensor | None,
    scale: float,
    need_lse: bool,
    into: Tensor,
) -> Tensor | None:
    """Write ``softmax(scale * q @ k.T + addend)`` into a tensor.

    Args:
        q: (N, m, D).
        k: (N, n, D).
        addend: (N, m, n) or None; every row of the logits keeps a finite entry.
        scale: factor on the products.
        need_lse: also compute the log-sum-exp, and everything in ``into``'s dtype.
        into: (N, m, n), of q's dtype unless ``need_lse``.

    Returns:
        The log-sum-exp (N, m) in ``into``'s dtype, or None.
    """
    logits = into if into.dtype == q.dtype else q.new_empty(into.shape)
    torch.baddbmm(
        logits if addend is None else addend, q, k.mT, beta=int(addend is not None), alpha=scale, out=logits
    )
    if not need_lse:
        torch.softmax(logits, -1, out=into)
        return None
    wide = logits.to(into.dtype)
    most = wide.amax(-1, keepdim=True)
    total = torch.sub(wide, most, out=into).exp_().sum(-1, keepdim=True)
    into.div_(total)  # one exponential per pair, where a log-sum-exp and its use take two
    return total.log_().add_(most).squeeze(-1)


def times_matrix(weights: Tensor, times: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The probabilities as they multiply the values."""
    return (weights if times is None else weights * times).to(dtype)


def slopes(
    weights: Tensor, grad: Tensor, v: Tensor, times: Tensor | None, grad_lse: Tensor | None, want_times: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Backward of the softmax.

    Args:
        weights: probabilities (N, m, n).
        grad: gradient of the output (N, m, Dv).
        v: (N, n, Dv).
        times: (N, m, n) or None.
        grad_lse: gradient of the log-sum-exp (N, m, 1) or None.
        want_times: whether to compute the gradient of ``times``.

    Returns:
        Gradient of the logits in the dtype of ``weights``, what multiplied the values in v's dtype, and the
        gradient of ``times``.
    """
    into = torch.bmm(grad, v.mT).to(weights.dtype)
    dtimes = weights * into if want_times else None
    if times is not None:
        into.mul_(times)
    torch._softmax_backward_data(into, weights, -1, into.dtype, grad_input=into)
    if grad_lse is not None:
        into.addcmul_(weights, grad_lse)
    return into, times_matrix(weights, times, v.dtype), dtimes


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    addend: Tensor | None,
    times: Tensor | None,
    scale: float,
    need_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """``(softmax(scale * q @ k.T + addend) * times) @ v`` as operations that autograd and compilers know.

    Args:
        q: (..., m, D).
        k: (..., n, D), leading axes as q's.
        v: (..., n, Dv), likewise.
        addend: broadcastable to (..., m, n), or None; every row of the logits keeps a finite entry.
        times: broadcastable to (..., m, n), or None.
        scale: factor on the products.
        need_lse: also compute the log-sum-exp of the logits.

    Returns:
        (..., m, Dv), and (..., m) in at least float32 or None.
    """
    logits = (q * scale) @ k.mT
    if addend is not None:
        logits = logits + addend
    lse: Tensor | None = None
    if need_lse:
        logits = logits.to(torch.promote_types(q.dtype, torch.float32))
        lse = logits.logsumexp(-1, keepdim=True)
        weights = (logits - lse).exp()
    else:
        weights = logits.softmax(-1)
    return times_matrix(weights, times, v.dtype) @ v, None if lse is None else lse.squeeze(-1)
