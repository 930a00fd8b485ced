"""The public operators among fields: checks and choice of backend."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention.core import emulated
from ..backends import choose, triton_refusal
from ..registering import listened_to
from . import layer, reference
from . import torch as plain

_TRITON_FIELDS = 128
"""One Triton program holds all logits of a problem."""


def field_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, backend: str | None = None
) -> Tensor:
    """Every field of a row attends to every field of the same row (AutoInt, arXiv:1810.11921, eq. 5 to 7).

    The same numbers as ``attention(q, k, v)`` with each batch entry a row, for many rows of few fields.

    Args:
        q, k: (B, H, F, D).
        v: (B, H, F, Dv).
        scale: factor on the products; None is ``D ** -0.5``, AutoInt's own is 1.0.
        backend: "reference", "torch", "triton" or None to choose. The torch backend works in blocks that stay
            in a CPU's cache, and on other devices by torch's own attention. While a graph is exported, None
            takes plain operations, which need no graphrec to run.

    Returns:
        (B, H, F, Dv).

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other, or a backend that cannot run.
    """
    if q.dim() != 4 or k.shape != q.shape or v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        found = ", ".join(str(tuple(one.shape)) for one in (q, k, v))
        raise ValueError(f"q, k and v must be (B, H, F, D), (B, H, F, D) and (B, H, F, Dv), got {found}")
    q, k, v = _autocast(q, k, v)
    _check_alike({"q": q, "k": k, "v": v})
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    width = max(q.shape[-1], v.shape[-1])
    refusals = {
        "reference": None,
        "torch": None,
        "triton": triton_refusal(q, k, v) or _too_large(q.shape[2], width, q.dtype),
    }
    name = choose("field_attention", backend, refusals).backend
    if name == "reference" or (backend is None and torch.compiler.is_exporting()):
        return reference.field_attention(q, k, v, scale)
    if name == "triton":
        from . import triton

        return triton.attention(q, k, v, scale)
    return plain.attention(q, k, v, scale)


def interacting_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    heads: int,
    scale: float | None = None,
    residual: bool = True,
    rectify: bool = False,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """AutoInt's layer, ``ReLU(softmax(scale Q K^T) V + R)`` (arXiv:1810.11921, eq. 5 to 8).

    Q, K, V and R come from one projection of x. The official code, DeepGraphLearning/RecommenderSystems at
    e07370a, applies ReLU to the projections and dropout to the attention weights.

    Args:
        x: (B, F, d) field vectors.
        weight: (4 h d', d) projections to Q, K, V, R in this order, heads inside each; (3 h d', d) without R.
        bias: (4 h d',) or (3 h d',), or None.
        heads: heads h.
        scale: factor of the products; None is ``d' ** -0.5``, the paper's is 1.0.
        residual: whether there is R.
        rectify: apply ReLU to the projections.
        dropout: dropout rate of the attention weights; not on Triton.
        backend: "reference", "torch", "triton" or None to choose, as in :func:`field_attention`. With dropout
            and on other devices than a CPU the torch backend is plain operations.

    Returns:
        (B, F, h d').

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other, a dropout that is no rate, or a
            backend that cannot run.
    """
    size = _check_layer(x, weight, bias, heads, residual, dropout)
    given = {"x": x, "weight": weight, "bias": bias}
    cast = _autocast(*(one for one in given.values() if one is not None))
    x, weight, bias = cast[0], cast[1], cast[2] if bias is not None else None
    _check_alike({"x": x, "weight": weight} | ({} if bias is None else {"bias": bias}))
    scale = size**-0.5 if scale is None else float(scale)
    refusals = {
        "reference": None,
        "torch": None,
        "triton": triton_refusal(x, weight)
        or _too_large(x.shape[1], size, x.dtype)
        or ("it drops no attention weights" if dropout else None),
    }
    name = choose("interacting_layer", backend, refusals).backend
    if name == "triton":
        from . import triton

        return triton.interacting_layer(x, weight, bias, heads, scale, residual, rectify)
    if name == "reference":
        return reference.interacting_layer(x, weight, bias, heads, scale, residual, rectify, dropout)
    portable = backend is None and torch.compiler.is_exporting()
    if dropout or portable or x.device.type != "cpu":
        return reference.compose(x, weight, bias, heads, scale, residual, rectify, dropout)
    if not emulated(x.dtype) or listened_to():
        return layer.apply(x, weight, bias, heads, scale, residual, rectify)
    wide = x.float(), weight.float(), None if bias is None else bias.float()
    return layer.apply(*wide, heads, scale, residual, rectify).to(x.dtype)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast hands them to a matrix product."""
    kind = tensors[0].device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # torch 2.11 cannot trace a question for kinds
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(one if one.dtype == torch.float64 else one.to(dtype) for one in tensors)


def _check_alike(tensors: dict[str, Tensor]) -> None:
    first, *rest = tensors.items()
    for name, one in rest:
        if one.dtype != first[1].dtype or one.device != first[1].device:
            raise ValueError(
                f"{name} is {one.dtype} on {one.device} and {first[0]} {first[1].dtype} on {first[1].device};"
                " they must be alike"
            )
    if not first[1].is_floating_point():
        raise ValueError(f"{first[0]} must be floating point, got {first[1].dtype}")


def _check_layer(
    x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, residual: bool, dropout: float
) -> int:
    """The width d' of a head."""
    if x.dim() != 3:
        raise ValueError(f"x of shape {tuple(x.shape)} must be (B, F, d)")
    parts = 3 + residual
    if weight.dim() != 2 or weight.shape[1] != x.shape[2] or heads < 1 or weight.shape[0] % (parts * heads):
        raise ValueError(
            f"weight of shape {tuple(weight.shape)} must be ({parts} heads d', {x.shape[2]}) "
            f"with heads={heads}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias of shape {tuple(bias.shape)} must be ({weight.shape[0]},)")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout={dropout} must be a rate from 0 to 1")
    return weight.shape[0] // (parts * heads)


def _too_large(fields: int, width: int, dtype: torch.dtype) -> str | None:
    """A program holds a problem's operands in shared memory at once: 227 KB on an H100 are not 256."""
    if fields > _TRITON_FIELDS or width > _TRITON_FIELDS:
        most = f"{_TRITON_FIELDS} fields and dimensions"
    elif dtype == torch.float32 and min(fields, width) > _TRITON_FIELDS // 2:
        most = f"{_TRITON_FIELDS // 2} fields or {_TRITON_FIELDS // 2} dimensions of float32"
    else:
        return None
    return f"one program takes up to {most}, not {fields} and {width}; attention takes more"
