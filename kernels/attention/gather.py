"""What the torch backend needs to know of a pattern, as tensors: constant in a compiled graph."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patterns import Pattern, decode, encode
from ..patterns.base import Folding
from ..registering import listened_to
from ..remembered import constant, kept
from .bias import table_columns
from .rows import uses_of

SMALL_GROUP = 64
"""Up to this many queries and keys a batched product, softmax and batched product beat fused attention."""

_DENSE_SHARE = 0.6
"""Above this share of all pairs, gathering costs more than computing everything."""

_MASK = 1 << 20
"""Pairs of a mask that is worth keeping."""


class Gather(NamedTuple):
    """A :class:`~graphrec.kernels.patterns.BlockPlan` with what follows from it.

    ``*_start`` and ``*_order`` say where rows of queries, keys and outputs were taken to, see
    :func:`~graphrec.kernels.attention.rows.uses_of`; ``k_once`` whether every key is in one place. ``term``
    (…, m, n) is what the pattern adds to the logits, -inf for hidden pairs, and ``empty`` (…, m, 1) marks the
    queries that see nothing, in whose rows it is zero. With a folding nothing is taken by index.
    """

    q_index: Tensor
    k_index: Tensor
    mask: Tensor | None
    penalty: Tensor | None
    inverse: Tensor
    folding: Folding | None
    term: Tensor | None
    empty: Tensor | None
    q_start: Tensor | None = None
    q_order: Tensor | None = None
    k_start: Tensor | None = None
    k_order: Tensor | None = None
    out_start: Tensor | None = None
    out_order: Tensor | None = None
    k_once: bool = False


Term = tuple[Tensor | None, Tensor | None]
"""What is added to the logits, and the rows (..., m, 1) that see nothing; None for nothing, for no rows."""


def make_term(mask: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> Term:
    """Mask and bias as one term. Rows that see nothing get zero, so that their softmax is defined."""
    if mask is None and bias is None:
        return None, None
    if bias is not None and _surely_finite(bias) and (mask is None or bool(mask.any(-1).all())):
        return bias.to(dtype) if mask is None else bias.to(dtype).masked_fill(~mask, -torch.inf), None
    if bias is None:
        assert mask is not None
        term = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)
    else:
        term = bias.to(dtype) if mask is None else bias.to(dtype).masked_fill(~mask, -torch.inf)
    empty = (term == -torch.inf).all(-1, keepdim=True)
    return term.masked_fill(empty, 0), empty


def _surely_finite(bias: Tensor) -> bool:
    """Whether a bias hides no pair; False where it takes long to ask, as on a GPU or while compiling."""
    if bias.device.type != "cpu" or bias.numel() == 0 or listened_to():
        return False
    return bias.detach().min().item() != -torch.inf


def with_penalty(bias: Tensor | None, soft: Tensor | None, value: float, dtype: torch.dtype) -> Tensor | None:
    """A bias with the penalty of the pairs that a pattern marks."""
    if soft is None:
        return bias
    penalty = soft.to(dtype) * value
    return penalty if bias is None else bias + penalty


def gather_for(
    pattern: Pattern, q_len: int, k_len: int, device: torch.device, dtype: torch.dtype
) -> Gather | None:
    """The groups to compute by, or None when they hold more than :data:`_DENSE_SHARE` of all pairs.

    Groups of at most :data:`SMALL_GROUP` that a reshape makes are taken at any share: one window that is the
    whole map has nothing to mask.
    """
    if torch.compiler.is_compiling():
        text, held = encode(pattern)
        found = None if held else _constant(text, *_numbers(q_len, k_len), str(device), dtype)
        return None if found is None else Gather(*found)
    make = _make if pattern.static else _make.__wrapped__
    return make(pattern, q_len, k_len, device, dtype)


def _numbers(*sizes: int) -> tuple[int, ...]:
    """Sizes that Dynamo may have traced as symbols, as the numbers that a plan is made from."""
    return tuple(map(index, sizes)) if torch.compiler.is_dynamo_compiling() else sizes


@constant
def _constant(
    text: str, q_len: int, k_len: int, device: str, dtype: torch.dtype
) -> tuple[object, ...] | None:
    found = _make(decode(text), q_len, k_len, torch.device(device), dtype)
    return None if found is None else tuple(found)


@lru_cache(maxsize=64)
@kept
def _make(
    pattern: Pattern, q_len: int, k_len: int, device: torch.device, dtype: torch.dtype
) -> Gather | None:
    if device.type == "meta":  # shapes alone, as for counting operations: a plan is made from numbers
        real = _make(pattern, q_len, k_len, torch.device("cpu"), dtype)
        return None if real is None else Gather(*_moved(real, device))
    plan = pattern.blocks(q_len, k_len, device)
    small = plan.folding is not None and plan.q_index.shape[1] <= SMALL_GROUP
    if plan.pairs > _DENSE_SHARE * q_len * k_len and not small:
        return None
    term, empty = make_term(plan.mask, with_penalty(None, plan.penalty, pattern.penalty_value, dtype), dtype)
    if empty is not None and not bool((empty.squeeze(-1) & (plan.q_index >= 0)).any()):
        empty = None
    found = Gather(
        plan.q_index, plan.k_index, plan.mask, plan.penalty, plan.inverse, plan.folding, term, empty
    )
    if plan.folding is not None or plan.k_index.shape[:2] != (1, 1):
        return found  # of a folding a reshape puts back what it took
    q_uses, out_uses = uses_of(plan.q_index, q_len), uses_of(plan.inverse, plan.q_index.numel())
    k_uses = uses_of(plan.k_index, k_len)
    once = bool((k_uses[0] == torch.arange(k_len, device=device)).all()) and len(k_uses[1]) == k_len
    return Gather(*found[:8], *q_uses, *k_uses, *out_uses, once)


def _moved(parts: Iterable[Any], device: torch.device) -> tuple[Any, ...]:
    """The tensors among some values on a device."""
    return tuple(one.to(device) if isinstance(one, Tensor) else one for one in parts)


def mask_for(pattern: Pattern, q_len: int, k_len: int, device: torch.device) -> Tensor:
    """The pattern's mask, constant in a compiled graph when the pattern is a value."""
    if torch.compiler.is_compiling():
        text, held = encode(pattern)
        if not held:
            return _constant_mask(text, *_numbers(q_len, k_len), str(device))
    elif pattern.static and q_len * k_len <= _MASK:
        return _kept_mask(pattern, q_len, k_len, device)
    return pattern.mask(q_len, k_len, device=device)


def tells_all(pattern: Pattern, mask: Tensor, q_len: int, k_len: int) -> bool:
    """Whether a mask leaves nothing to look after: every query sees a key, and nothing is added to logits.

    Compilers and other devices are not asked.
    """
    if listened_to() or mask.device.type != "cpu":
        return False
    if pattern.static and q_len * k_len <= _MASK:
        return _kept_answer(pattern, q_len, k_len)
    return _answer(pattern, mask, q_len, k_len)


@lru_cache(maxsize=256)
@kept
def _kept_answer(pattern: Pattern, q_len: int, k_len: int) -> bool:
    return _answer(pattern, mask_for(pattern, q_len, k_len, torch.device("cpu")), q_len, k_len)


def _answer(pattern: Pattern, mask: Tensor, q_len: int, k_len: int) -> bool:
    place = torch.arange(max(q_len, k_len))
    soft = pattern.penalty(place[:q_len, None], place[:k_len], q_len, k_len)
    return soft is None and mask.shape[-1] > 0 and bool(mask.any(-1).all())


@lru_cache(maxsize=64)
@kept
def _kept_mask(pattern: Pattern, q_len: int, k_len: int, device: torch.device) -> Tensor:
    return pattern.mask(q_len, k_len, device=device)


@constant
def _constant_mask(text: str, q_len: int, k_len: int, device: str) -> Tensor:
    return decode(text).mask(q_len, k_len, device=device)


def columns_for(
    pattern: Pattern, found: Gather, window: tuple[int, ...], q_len: int, k_len: int
) -> tuple[Tensor, Tensor | None]:
    """The relative bias's column of every pair of the groups.

    Returns:
        When all heads are alike, int64 (kinds, m, n) for the groups that differ, and each group's kind (N,);
        else int64 (B', H', N, m, n) and None. Column 0 stands where there is no pair.
    """
    device = found.q_index.device
    if torch.compiler.is_compiling():
        return _constant_columns(encode(pattern)[0], _numbers(*window), *_numbers(q_len, k_len), str(device))
    if pattern.static:
        return _static_columns(pattern, window, q_len, k_len, device)
    return table_columns(pattern, found.q_index, found.k_index, window, q_len, k_len), None


@lru_cache(maxsize=64)
@kept
def _static_columns(
    pattern: Pattern, window: tuple[int, ...], q_len: int, k_len: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    if device.type == "meta":
        kinds, kind = _static_columns(pattern, window, q_len, k_len, torch.device("cpu"))
        return kinds.to(device), None if kind is None else kind.to(device)
    plan = pattern.blocks(q_len, k_len, device)
    columns = table_columns(pattern, plan.q_index, plan.k_index, window, q_len, k_len)
    groups = columns[0, 0]
    if len(groups) and torch.equal(groups, groups[:1].expand_as(groups)):
        return groups[:1].clone(), torch.zeros(len(groups), dtype=torch.int64, device=device)
    return torch.unique(groups, dim=0, return_inverse=True)  # type: ignore[no-any-return]


@constant
def _constant_columns(
    text: str, window: tuple[int, ...], q_len: int, k_len: int, device: str
) -> tuple[Tensor, Tensor | None]:
    return _static_columns(decode(text), window, q_len, k_len, torch.device(device))


def phantoms_for(pattern: Pattern, q_len: int) -> tuple[Tensor, Tensor] | None:
    """The pattern's zero keys, see :meth:`Pattern.phantoms`, constant in a compiled graph."""
    if getattr(pattern, "border", "mask") != "zero":
        return None
    if torch.compiler.is_compiling():
        return _constant_phantoms(encode(pattern)[0], *_numbers(q_len))
    return _static_phantoms(pattern, q_len)


@lru_cache(maxsize=64)
@kept
def _static_phantoms(pattern: Pattern, q_len: int) -> tuple[Tensor, Tensor] | None:
    return pattern.phantoms(q_len)


@constant
def _constant_phantoms(text: str, q_len: int) -> tuple[Tensor, Tensor] | None:
    return decode(text).phantoms(q_len)
