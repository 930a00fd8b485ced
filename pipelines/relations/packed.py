"""Relation instances laid end to end, without padding: what packed networks read."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ranges import ranges
from .container import RelationSet


class PackedRelations(NamedTuple):
    """b instances over R rows of N tokens in all; a row is a text as one instance, or all, see it.

    Attributes:
        word, pos, dep: Codes, int64 (N,).
        head: Position among the N of each token's head, int64 (N,); -1 at roots and detached tokens.
        ptr: Row r has the tokens ``ptr[r] … ptr[r + 1] - 1``; int64 (R + 1,).
        row: Row of each instance, int64 (b,).
        member: Positions among the N of the entities' tokens, entity by entity, int64 (M,).
        member_ptr: Entity k of instance i has ``member[member_ptr[i * K + k] : member_ptr[i * K + k + 1]]``;
            int64 (b * K + 1,). An entity without mentions has none.
        mark: True at the tokens of each entity of the row's instance, bool (N, K); all False in rows that
            instances share.
        labels: Class of each instance, int64 (b,).
    """

    word: Tensor
    pos: Tensor
    dep: Tensor
    head: Tensor
    ptr: Tensor
    row: Tensor
    member: Tensor
    member_ptr: Tensor
    mark: Tensor
    labels: Tensor


def pack(relations: RelationSet, index: Any, *, shared: bool = False) -> PackedRelations:
    """Lay instances end to end.

    Args:
        relations: The set.
        index: Which instances, int64 (b,), in this order.
        shared: One row for each text, which its instances share, instead of one for each instance. There are
            then no marks: whose would they be?
    """
    chosen = torch.as_tensor(index, dtype=torch.int64).flatten()
    text, row = relations.text[chosen], torch.arange(len(chosen))
    if shared:
        text, row = torch.unique(text, return_inverse=True)
    at, ptr = ranges(relations.text_ptr, text)
    start = torch.repeat_interleave(ptr[:-1], ptr.diff())
    head = relations.head[at]
    owner, entity, member = _members(relations, chosen, ptr[row])
    slot = owner * relations.num_entities + entity
    order = torch.argsort(slot, stable=True)
    member = member[order]
    sizes = torch.bincount(slot, minlength=len(chosen) * relations.num_entities)
    mark = torch.zeros(len(at), relations.num_entities, dtype=torch.bool)
    if not shared:
        mark[member, entity[order]] = True
    return PackedRelations(
        relations.word[at],
        relations.pos[at],
        relations.dep[at],
        torch.where(head >= 0, head + start, -1),
        ptr,
        row,
        member,
        torch.nn.functional.pad(sizes.cumsum(0), (1, 0)),
        mark,
        relations.y[chosen],
    )


def _members(relations: RelationSet, chosen: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Instance (its number in ``chosen``), entity and position of every token of every mention."""
    place, ptr = ranges(relations.span_ptr, chosen)
    spans = relations.spans[place]
    owner = torch.repeat_interleave(torch.arange(len(chosen)), ptr.diff())
    size = spans[:, 3] - spans[:, 2]
    before = torch.repeat_interleave(size.cumsum(0) - size, size)
    inside = torch.arange(int(size.sum())) - before
    owner = torch.repeat_interleave(owner, size)
    member = torch.repeat_interleave(spans[:, 2], size) + inside + first[owner]
    return owner, torch.repeat_interleave(spans[:, 1], size), member
