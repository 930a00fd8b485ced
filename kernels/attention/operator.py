"""The public attention functions: choice of backend, and what happens around the softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor

from ..backends import Choice, choose, triton_refusal
from ..patterns import Full, Pattern
from ..tally import active_tally
from . import reference
from . import torch as plain
from .beside import attend_beside, takes
from .bias import RelativeBias
from .checks import check_inputs, check_sources, per_query
from .merging import add_sink, merge, total_sink
from .quick import small_attention
from .source import Source, Weights
from .watching import WATCHERS, Call

_FULL = Full()


@overload
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern = ...,
    *,
    bias: Weights | None = ...,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    times: Weights | None = ...,
    plus: Weights | None = ...,
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
    bias: Weights | None = ...,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    times: Weights | None = ...,
    plus: Weights | None = ...,
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
    bias: Weights | None = None,
    scale: float | None = None,
    sink: Tensor | None = None,
    times: Weights | None = None,
    plus: Weights | None = None,
    gate: Tensor | None = None,
    return_lse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention restricted to the pairs that a pattern shows.

    ``gate * ((softmax(scale * q @ k.T + bias) * times + plus) @ v)`` over visible keys. A query that sees no
    key gets output 0, log-sum-exp -inf and no gradient. Gradients reach q, k, v, bias, times and plus (or
    their tables), sink and gate.

    Args:
        q: (B, H, Lq, D).
        k: (B, Hkv, Lk, D), where H is a multiple of Hkv: neighbouring query heads share a key head.
        v: (B, Hkv, Lk, Dv).
        pattern: who sees whom.
        bias: added to the logits: a tensor broadcastable to (B, H, Lq, Lk), or a :class:`RelativeBias`.
        scale: factor on the products; None is ``D ** -0.5``, 1.0 is none.
        sink: logits of one more key with value zero, (H,) or broadcastable to (B, H, Lq).
        times: multiplied with the probabilities (TCPA's way), like ``bias``.
        plus: added to the probabilities of visible pairs (TransNeXt, arXiv:2311.17132), like ``bias``.
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
    around = sink is None and times is None and plus is None and gate is None and not return_lse
    if around and pattern is _FULL and backend is None and not isinstance(bias, RelativeBias):
        quick = small_attention(q, k, v, bias, scale)
        if quick is not None:
            return quick
    check_inputs(q, k, v, pattern, bias, times, plus)
    name = select("attention", q, [k, v], backend).backend
    sources = [Source(k, v, pattern, bias, times, plus)]
    out, lse = _compute(name, q, sources, scale, sink, gate, return_lse)
    if not return_lse:
        return out
    assert lse is not None
    return out, lse


@overload
def joint_attention(
    q: Tensor,
    sources: Sequence[Source],
    *,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    gate: Tensor | None = ...,
    return_lse: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor: ...


@overload
def joint_attention(
    q: Tensor,
    sources: Sequence[Source],
    *,
    scale: float | None = ...,
    sink: Tensor | None = ...,
    gate: Tensor | None = ...,
    return_lse: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]: ...


def joint_attention(
    q: Tensor,
    sources: Sequence[Source],
    *,
    scale: float | None = None,
    sink: Tensor | None = None,
    gate: Tensor | None = None,
    return_lse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention to several sets of keys under one softmax.

    Local keys beside pooled ones (TransNeXt, arXiv:2311.17132), beside a few cross tokens (FcaFormer,
    arXiv:2211.07198), beside those of every stage of a pyramid. Each source has its own pattern, bias and
    weights after the softmax; all share one normaliser, exactly, through their log-sum-exps. ``times`` of a
    source multiplies probabilities of the joint softmax. A key in two sources counts twice.

    Args:
        q: (B, H, Lq, D).
        sources: each a :class:`Source`, or a tuple (k, v, pattern, bias, times, plus) that ends early.
        scale: factor on the products; None is ``D ** -0.5``.
        sink: logits of one more key with value zero, (H,) or broadcastable to (B, H, Lq).
        gate: factor on the output, broadcastable to (B, H, Lq).
        return_lse: also return the log-sum-exp over all sources.
        backend: "reference", "torch", "triton", or None to choose by device.

    Returns:
        As :func:`attention`.

    Raises:
        ValueError: no source, or a source that :func:`attention` could not take, by its number.
    """
    found = [one if isinstance(one, Source) else Source(*one) for one in sources]
    check_sources(q, found)
    name = select("joint_attention", q, [x for one in found for x in (one.k, one.v)], backend).backend
    out, lse = _compute(name, q, found, scale, sink, gate, return_lse)
    if not return_lse:
        return out
    assert lse is not None
    return out, lse


def select(operator: str, q: Tensor, others: Sequence[Tensor], backend: str | None) -> Choice:
    """The backend that an operator would use, and why."""
    return choose(operator, backend, {"reference": None, "torch": None, "triton": triton_refusal(q, *others)})


def _compute(
    name: str,
    q: Tensor,
    sources: list[Source],
    scale: float | None,
    sink: Tensor | None,
    gate: Tensor | None,
    return_lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """The joint softmax, then what is around it: sinks, weights added to the probabilities, the gate."""
    if (tally := active_tally()) is not None:
        return tally.attention(q, sources)
    if name == "torch" and q.shape[0] == 0:
        name = "reference"  # groups of an empty batch have no first member; the formula needs none
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    for watcher in WATCHERS:
        watcher(Call(q, sources, factor, sink, gate))
    lone = sink
    for one in sources:
        lone = total_sink(q, one.pattern or _FULL, one.bias, lone)
    need_lse = return_lse or lone is not None or len(sources) > 1
    lse: Tensor | None
    if name == "torch" and lone is None and not return_lse and takes(q, sources):
        out, lse = attend_beside(q, sources[0], sources[1], factor), None
        sources = []  # what is added to the probabilities is in it
    elif name == "reference":
        out, lse = reference.joint(q, sources, factor)
    else:
        parts = [_softmax(name, q, one, factor, need_lse) for one in sources]
        if len(parts) == 1:
            out, lse = parts[0]
        else:
            out, lse = merge([one for one, _ in parts], [one for _, one in parts if one is not None])
    if lone is not None and lse is not None:
        out, lse = add_sink(out, lse, lone)
    for one in sources:
        if one.plus is not None:
            out = out + _weighted_sum(name, q, one)
    if gate is not None:
        out = out * per_query(gate, q, "gate").unsqueeze(-1).to(out.dtype)
    return out, lse


def _softmax(name: str, q: Tensor, one: Source, scale: float, need_lse: bool) -> tuple[Tensor, Tensor | None]:
    """Softmax attention to one source by one backend; ``plus`` comes later."""
    pattern = one.pattern or _FULL
    if name == "triton":
        from .triton import attention as tiled

        return tiled(q, one.k, one.v, pattern, one.bias, scale, one.times)
    return plain.attention(q, one.k, one.v, pattern, one.bias, scale, need_lse, one.times)


def _weighted_sum(name: str, q: Tensor, one: Source) -> Tensor:
    """What ``plus`` adds to the output: a sum of visible values under given weights."""
    pattern = one.pattern or _FULL
    assert one.plus is not None
    if name == "reference":
        return reference.weighted_sum(q, one)
    if name == "torch":
        return plain.weighted_sum(one.plus, one.v, pattern, q.shape[2], q.shape[1])
    from .triton import weighted_sum

    return weighted_sum(one.plus, one.v, pattern, q.shape[2], q.shape[1])
