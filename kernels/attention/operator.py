"""The public attention functions: checks, choice of backend, and what happens around the softmax."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ..backends import Choice, choose, triton_refusal
from ..patterns import Full, Pattern
from . import reference
from . import torch as plain
from .bias import RelativeBias
from .gather import phantoms_for

_FULL = Full()


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern = ...,
    *,
    bias: Tensor | RelativeBias | None = ...,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    gate: Tensor | None = ...,
    return_lse: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern = ...,
    *,
    bias: Tensor | RelativeBias | None = ...,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    gate: Tensor | None = ...,
    return_lse: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern = _FULL,
    *,
    bias: Tensor | RelativeBias | None = None,
    scale: float | None = None,
    sink: Tensor | None = None,
    gate: Tensor | None = None,
    return_lse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention restricted to the pairs that a pattern shows.

    ``softmax(scale * q @ k.T + bias) @ v`` over visible keys. A query that sees no key gets output 0,
    log-sum-exp -inf and no gradient. Gradients reach q, k, v, bias (or its table), sink and gate.

    Args:
        q: (B, H, Lq, D).
        k: (B, Hkv, Lk, D), where H is a multiple of Hkv: neighbouring query heads share a key head.
        v: (B, Hkv, Lk, Dv).
        pattern: who sees whom.
        bias: added to the logits: a tensor broadcastable to (B, H, Lq, Lk), or a :class:`RelativeBias`.
        scale: factor on the products; None is ``D ** -0.5``, 1.0 is none.
        sink: logits of one more key with value zero, (H,) or broadcastable to (B, H, Lq).
        gate: factor on the output, broadcastable to (B, H, Lq).
        return_lse: also return the log-sum-exp of the logits, differentiable, for :func:`merge`.
        backend: "reference", "torch", "triton", or None to choose by device; see
        :func:`graphrec.kernels.explain`.

    Returns:
        Output (B, H, Lq, Dv) in q's dtype; with ``return_lse`` also (B, H, Lq) in float32, or float64 for
        float64.

    Raises:
        ValueError: shapes, dtypes, devices or lengths that do not fit, or a backend that cannot run.
    """
    check_inputs(q, k, v, pattern, bias)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    total_sink = _sinks(q, pattern, bias, sink)
    need_lse = return_lse or total_sink is not None
    lse: Tensor | None
    name = select(q, k, v, pattern, bias, backend).backend
    if name == "reference":
        out, lse = reference.attention(q, k, v, pattern, bias, scale)
    elif name == "triton":
        from .triton import attention as tiled

        out, lse = tiled(q, k, v, pattern, bias, scale)
    else:
        out, lse = plain.attention(q, k, v, pattern, bias, scale, need_lse)
    if total_sink is not None and lse is not None:
        out, lse = _add_sink(out, lse, total_sink)
    if gate is not None:
        out = out * _per_query(gate, q, "gate").unsqueeze(-1).to(out.dtype)
    if not return_lse:
        return out
    assert lse is not None
    return out, lse


def select(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, bias: object, backend: str | None) -> Choice:
    """The backend that attention would use, and why."""
    return choose("attention", backend, {"reference": None, "torch": None, "triton": triton_refusal(q, k, v)})


def check_inputs(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, bias: Tensor | RelativeBias | None
) -> None:
    """Raise ValueError, naming the argument, for what attention cannot take."""
    for name, one in (("q", q), ("k", k), ("v", v)):
        if one.dim() != 4:
            raise ValueError(f"{name} of shape {tuple(one.shape)} must be (batch, heads, length, dim)")
        if one.device != q.device or one.dtype != q.dtype:
            raise ValueError(
                f"{name} is {one.dtype} on {one.device}, q is {q.dtype} on {q.device}: they must agree"
            )
    if not q.is_floating_point():
        raise ValueError(f"q must be floating point, got {q.dtype}")
    _check_shapes(q, k, v)
    if not isinstance(pattern, Pattern):
        raise ValueError(f"pattern must be a Pattern, got {type(pattern).__name__}")
    batch, heads, q_len, k_len = *q.shape[:3], k.shape[2]
    if pattern.batch not in (1, batch) or pattern.heads not in (1, heads):
        given = f"{pattern.batch} batch entries and {pattern.heads} heads"
        raise ValueError(f"pattern {pattern!r} tells apart {given}, q has {batch} and {heads}")
    pattern.check(q_len, k_len)
    _check_bias(bias, pattern, (batch, heads, q_len, k_len))


def _check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    batch, heads, _, dim = q.shape
    if k.shape[0] != batch or k.shape[3] != dim or k.shape[1] < 1 or heads % k.shape[1]:
        want = f"({batch}, a divisor of {heads}, any, {dim})"
        raise ValueError(f"k of shape {tuple(k.shape)} must be {want} for q of shape {tuple(q.shape)}")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v of shape {tuple(v.shape)} must start with {tuple(k.shape[:3])}, like k")


def _check_bias(
    bias: Tensor | RelativeBias | None, pattern: Pattern, size: tuple[int, int, int, int]
) -> None:
    if isinstance(bias, RelativeBias):
        bias.check(pattern, size[2], size[3], size[1])
    elif bias is not None and not _broadcasts(bias, size):
        raise ValueError(f"bias of shape {tuple(bias.shape)} must be 4-D and broadcast to {size}")


def _broadcasts(x: Tensor, size: tuple[int, ...]) -> bool:
    return x.dim() == len(size) and all(one in (1, want) for one, want in zip(x.shape, size, strict=True))


def _per_query(x: Tensor, q: Tensor, name: str) -> Tensor:
    """One number per head, or per batch entry, head and query, as (B or 1, H or 1, Lq or 1)."""
    x = x.view(1, -1, 1) if x.dim() == 1 else x
    if not _broadcasts(x, tuple(q.shape[:3])):
        raise ValueError(f"{name} of shape {tuple(x.shape)} must broadcast to {tuple(q.shape[:3])}")
    return x


def _sinks(
    q: Tensor, pattern: Pattern, bias: Tensor | RelativeBias | None, sink: Tensor | None
) -> Tensor | None:
    """The logit of all zero keys together, (B or 1, H or 1, Lq or 1): the caller's and a zero border's."""
    given = (
        None if sink is None else _per_query(sink, q, "sink").to(torch.promote_types(q.dtype, torch.float32))
    )
    found = phantoms_for(pattern, q.shape[2])
    if found is None:
        return given
    if isinstance(bias, RelativeBias):
        border = bias.phantom(*found).unsqueeze(0).to(torch.promote_types(q.dtype, torch.float32))
    else:
        border = found[1].sum(-1).to(q.device, torch.promote_types(q.dtype, torch.float32)).log()[None, None]
    return border if given is None else log_add(given, border)


def log_add(one: Tensor, other: Tensor) -> Tensor:
    """``log(exp(one) + exp(other))`` with right values and gradients where either or both are -inf."""
    high = torch.maximum(one, other).detach()
    base = torch.where(high == -torch.inf, 0, high)
    total = (one - base).exp() + (other - base).exp()
    none = total == 0
    return torch.where(none, -torch.inf, base + torch.where(none, 1, total).log())


def _add_sink(out: Tensor, lse: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax widened by a key of value zero: every weight shrinks alike."""
    total = log_add(lse, sink)
    share = (lse - torch.where(total == -torch.inf, 0, total)).exp()
    return out * share.unsqueeze(-1).to(out.dtype), total.expand(lse.shape)


def merge(outputs: list[Tensor], lses: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over disjoint sets of keys, from the attention over each.

    Args:
        outputs: each (B, H, Lq, Dv).
        lses: each (B, H, Lq), as ``attention(..., return_lse=True)`` gives them.

    Returns:
        Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq) over all keys. A key in two sets counts twice.

    Raises:
        ValueError: the lists differ in length, are empty, or shapes differ.
    """
    if not outputs or len(outputs) != len(lses):
        raise ValueError(
            f"merge needs as many outputs as lses, at least one: got {len(outputs)} and {len(lses)}"
        )
    for out, lse in zip(outputs, lses, strict=True):
        if out.shape != outputs[0].shape or lse.shape != out.shape[:-1]:
            found, want = f"{tuple(out.shape)} and {tuple(lse.shape)}", tuple(outputs[0].shape)
            raise ValueError(f"outputs and lses of shape {found} must be {want} and {want[:-1]}")
    total = lses[0]
    for lse in lses[1:]:
        total = log_add(total, lse)
    base = torch.where(total == -torch.inf, 0, total)
    parts = [
        out * (lse - base).exp().unsqueeze(-1).to(out.dtype) for out, lse in zip(outputs, lses, strict=True)
    ]
    return torch.stack(parts).sum(0), total
