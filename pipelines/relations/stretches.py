"""The shortest stretch of a text that holds a mention of each entity of an instance."""

from __future__ import annotations

import torch
from torch import Tensor

from .container import RelationSet


def shortest_stretches(relations: RelationSet) -> Tensor:
    """First token of each instance's stretch and the one after its last, int64 (n, 2), counted in the text.

    Of stretches of one length the first. An instance that leaves an entity unmentioned has an empty one.
    """
    spans = relations.spans[_order(relations.spans)]
    instance, entity, begin, end = spans.unbind(1)
    far = int(relations.text_ptr.diff().max()) + 1 if len(relations.text) else 1
    # The nearest end of each entity at or after a mention, found from the back; base keeps instances apart.
    base = 2 * far * instance
    reach = begin.clone()
    for k in range(relations.num_entities):
        ends = base + torch.where(entity == k, end, far)
        ahead = ends.flip(0).cummin(0).values.flip(0) - base
        reach = reach.maximum(ahead)
    found = torch.zeros(len(relations), 2, dtype=torch.int64)
    whole = reach < far
    size = torch.where(whole, reach - begin, far)
    best = torch.full((len(relations),), far).scatter_reduce(0, instance, size, "amin")
    shortest = (whole & (size == best[instance])).nonzero().flatten()
    first = shortest[instance[shortest].diff(prepend=instance.new_tensor([-1])) > 0]
    found[instance[first]] = torch.stack([begin[first], reach[first]], 1)
    return found


def _order(spans: Tensor) -> Tensor:
    """By instance, then by first token."""
    by_begin = torch.argsort(spans[:, 2], stable=True)
    return by_begin[torch.argsort(spans[by_begin, 0], stable=True)]
