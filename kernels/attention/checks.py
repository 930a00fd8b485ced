"""What attention can take: shapes, dtypes and devices, checked with messages that name the argument."""

from __future__ import annotations

from torch import Tensor

from ..patterns import Full, Pattern
from .bias import RelativeBias
from .source import Source, Weights


def check_inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    bias: Weights | None,
    times: Weights | None = None,
    plus: Weights | None = None,
) -> None:
    """Raise ValueError, naming the argument, for what attention cannot take."""
    check_tensors(q, k, v)
    check_shapes(q, k, v)
    if not isinstance(pattern, Pattern):
        raise ValueError(f"pattern must be a Pattern, got {type(pattern).__name__}")
    batch, heads, q_len, k_len = *q.shape[:3], k.shape[2]
    if pattern.batch not in (1, batch) or pattern.heads not in (1, heads):
        given = f"{pattern.batch} batch entries and {pattern.heads} heads"
        raise ValueError(f"pattern {pattern!r} tells apart {given}, q has {batch} and {heads}")
    pattern.check(q_len, k_len)
    for name, pairs in (("bias", bias), ("times", times), ("plus", plus)):
        _check_pairs(name, pairs, pattern, (batch, heads, q_len, k_len))


def check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError where axes, dtypes or devices do not fit together."""
    for name, one in (("q", q), ("k", k), ("v", v)):
        if one.dim() != 4:
            raise ValueError(f"{name} of shape {tuple(one.shape)} must be (batch, heads, length, dim)")
        if one.device != q.device or one.dtype != q.dtype:
            raise ValueError(
                f"{name} is {one.dtype} on {one.device}, q is {q.dtype} on {q.device}: they must agree"
            )
    if not q.is_floating_point() or q.dtype.itemsize < 2:
        raise ValueError(f"q must be floating point, got {q.dtype}")


def check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise ValueError where keys or values do not have the shape that the queries ask for."""
    batch, heads, _, dim = q.shape
    if k.shape[0] != batch or k.shape[3] != dim or k.shape[1] < 1 or heads % k.shape[1]:
        want = f"({batch}, a divisor of {heads}, any, {dim})"
        raise ValueError(f"k of shape {tuple(k.shape)} must be {want} for q of shape {tuple(q.shape)}")
    if dim < 1:
        raise ValueError(f"q of shape {tuple(q.shape)} must have a dim of at least 1")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"v of shape {tuple(v.shape)} must start with {tuple(k.shape[:3])}, like k")


def _check_pairs(name: str, pairs: Weights | None, pattern: Pattern, size: tuple[int, int, int, int]) -> None:
    if isinstance(pairs, RelativeBias):
        pairs.check(pattern, size[2], size[3], size[1], size[0])
    elif pairs is not None and not broadcasts(pairs, size):
        raise ValueError(f"{name} of shape {tuple(pairs.shape)} must be 4-D and broadcast to {size}")


def check_sources(q: Tensor, sources: list[Source]) -> None:
    """Raise ValueError for sources that attention cannot take together."""
    if not sources:
        raise ValueError("sources is empty, there must be at least one")
    for place, one in enumerate(sources):
        try:
            check_inputs(q, one.k, one.v, one.pattern or Full(), one.bias, one.times, one.plus)
        except ValueError as error:
            raise ValueError(f"sources[{place}]: {error}") from None
        if one.v.shape[3] != sources[0].v.shape[3]:
            found, want = tuple(one.v.shape), sources[0].v.shape[3]
            raise ValueError(f"sources[{place}]: v of shape {found} must end in {want}, like the first")


def broadcasts(x: Tensor, size: tuple[int, ...]) -> bool:
    return x.dim() == len(size) and all(one in (1, want) for one, want in zip(x.shape, size, strict=True))


def per_query(x: Tensor, q: Tensor, name: str) -> Tensor:
    """One number per head, or per batch entry, head and query, as (B or 1, H or 1, Lq or 1)."""
    x = x.view(1, -1, 1) if x.dim() == 1 else x
    if not broadcasts(x, tuple(q.shape[:3])):
        raise ValueError(f"{name} of shape {tuple(x.shape)} must broadcast to {tuple(q.shape[:3])}")
    return x
