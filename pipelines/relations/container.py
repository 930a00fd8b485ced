"""Relation instances over shared texts, in long tensors of codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from ..item_index import item_index, many, refuse_parted
from ..ranges import ranges

PADDING, UNKNOWN = "<pad>", "<unk>"
COLUMNS = ("word", "pos", "dep")


@dataclass(frozen=True, eq=False)
class RelationBatch:
    """b instances padded to L tokens, K entities each.

    Attributes:
        word, pos, dep: Codes, int64 (b, L); 0 is padding, 1 unknown.
        head: Position of each token's head in its text, int64 (b, L); -1 at roots, detached tokens and
            padding.
        mask: True at tokens, bool (b, L).
        entity: True at the tokens of each entity, bool (b, K, L); an entity may be mentioned several times.
        y: Class, int64 (b,).
    """

    word: Tensor
    pos: Tensor
    dep: Tensor
    head: Tensor
    mask: Tensor
    entity: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: Any) -> RelationBatch:
        """The same on another device."""
        return RelationBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def adjacency(self) -> Tensor:
        """Dependency edges in both directions, without loops, float32 (b, L, L)."""
        batch, token = (self.head >= 0).nonzero(as_tuple=True)
        head = self.head[batch, token]
        matrix = torch.zeros(len(self), *[self.head.shape[1]] * 2, device=self.head.device)
        matrix[batch, token, head] = matrix[batch, head, token] = 1.0
        return matrix

    def edge_index(self) -> Tensor:
        """The same edges as pairs of positions in the flattened ``(b * L)`` tokens, int64 (2, E)."""
        batch, token = (self.head >= 0).nonzero(as_tuple=True)
        first = batch * self.head.shape[1]
        pair = torch.stack([first + token, first + self.head[batch, token]])
        return torch.cat([pair, pair.flip(0)], dim=1)


@dataclass(frozen=True, eq=False, repr=False)
class RelationSet:
    """n instances over D texts of T tokens in all. Instances may share a text; splits must then keep them
    together.

    Attributes:
        word, pos, dep: Codes of each token, of its part of speech and of its dependency, int64 (T,).
        head: Position of each token's head in its own text, int64 (T,); -1 for none.
        text_ptr: Text d has the tokens ``text_ptr[d] … text_ptr[d + 1] - 1``; int64 (D + 1,).
        text: Text of each instance, int64 (n,).
        spans: Mentions of entities, int64 (S, 4): instance, entity, first token and the one after the last,
            counted in the text; sorted by instance.
        y: Class of each instance, int64 (n,).
        words, pos_names, dep_names: What the codes stand for; the first two are padding and unknown.
        classes: Text of the classes.
        num_entities: K.
        name: What messages call the set.

    Raises:
        DataError: A head, span, text or class is out of range.
    """

    word: Tensor
    pos: Tensor
    dep: Tensor
    head: Tensor
    text_ptr: Tensor
    text: Tensor
    spans: Tensor
    y: Tensor
    words: tuple[str, ...]
    pos_names: tuple[str, ...]
    dep_names: tuple[str, ...]
    classes: tuple[str, ...]
    num_entities: int
    name: str = "relations"
    span_ptr: Tensor = field(init=False)

    def __post_init__(self) -> None:
        length = self.text_ptr.diff()[self.text[self.spans[:, 0]]]
        bad = (self.spans[:, 2] < 0) | (self.spans[:, 3] > length) | (self.spans[:, 2] >= self.spans[:, 3])
        bad |= (self.spans[:, 1] < 0) | (self.spans[:, 1] >= self.num_entities)
        if bool(bad.any()):
            instance, entity, first, last = self.spans[bad.nonzero()[0, 0]].tolist()
            raise DataError(
                f"{self.name}: instance {instance}: entity {entity} at tokens {first} to {last - 1}, which "
                f"the text of {int(length[bad][0])} tokens does not have"
            )
        own = torch.repeat_interleave(self.text_ptr.diff(), self.text_ptr.diff())
        wrong = ((self.head < -1) | (self.head >= own)).nonzero().flatten()
        if len(wrong):
            text = int(torch.searchsorted(self.text_ptr, wrong[0], right=True)) - 1
            raise DataError(
                f"{self.name}: text {text}: a head leads to token {int(self.head[wrong[0]])}, which is "
                "missing"
            )
        counts = torch.bincount(self.spans[:, 0], minlength=len(self.y))
        object.__setattr__(self, "span_ptr", torch.nn.functional.pad(counts.cumsum(0), (1, 0)))

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return (
            f"RelationSet({self.name!r}, {len(self)} instances over {len(self.text_ptr) - 1} texts, "
            f"{len(self.word)} tokens, {len(self.words)} words, {self.num_entities} entities, "
            f"{len(self.classes)} classes)"
        )

    @property
    def shape(self) -> tuple[int]:
        """(n,); scikit-learn's cross-validation takes what has one."""
        return (len(self),)

    def __getitem__(self, index: Any) -> RelationSet:
        """One instance, or those of a slice, list or mask; as folds of scikit-learn's they must not leak.

        Raises:
            DataError: A list or a mask takes some instances of a text and leaves others; `select` does not
                ask.
        """
        chosen = item_index(index, len(self), "instance")
        if many(index):
            refuse_parted(
                self.text,
                chosen,
                f"{self.name}: instances of text {{}} fall on both sides of a split, so one side gives the "
                "other away; give groups=relations.text and GroupKFold",
            )
        return self.select(chosen)

    def select(self, index: Any) -> RelationSet:
        """These instances, in this order, over the same texts."""
        chosen = item_index(index, len(self), "instance")
        spans, ptr = ranges(self.span_ptr, chosen)
        own = torch.repeat_interleave(torch.arange(len(chosen)), ptr.diff())
        spans = torch.cat([own[:, None], self.spans[spans, 1:]], dim=1)
        return replace(self, text=self.text[chosen], spans=spans, y=self.y[chosen])

    def tokens(self, index: int) -> list[str]:
        """The words of an instance's text."""
        first, last = self.text_ptr[self.text[index]], self.text_ptr[self.text[index] + 1]
        return [self.words[c] for c in self.word[first:last].tolist()]

    def lengths(self) -> Tensor:
        """Tokens of each instance's text, int64 (n,)."""
        return self.text_ptr.diff()[self.text]

    def batch(self, index: Any) -> RelationBatch:
        """These instances, padded to the longest of them."""
        chosen = torch.as_tensor(index, dtype=torch.int64).flatten()
        first, length = self.text_ptr[self.text[chosen]], self.lengths()[chosen]
        width = int(length.max()) if len(chosen) else 0
        place = torch.arange(width)
        mask = place < length[:, None]
        at = (first[:, None] + place).masked_fill(~mask, 0)
        codes = {c: getattr(self, c)[at].masked_fill(~mask, 0) for c in COLUMNS}
        head = self.head[at].masked_fill(~mask, -1)
        return RelationBatch(
            **codes, head=head, mask=mask, entity=self._entities(chosen, width), y=self.y[chosen]
        )

    def _entities(self, chosen: Tensor, width: int) -> Tensor:
        count = self.span_ptr.diff()[chosen]
        row = torch.repeat_interleave(torch.arange(len(chosen)), count)
        before = torch.repeat_interleave(self.span_ptr[chosen] - (count.cumsum(0) - count), count)
        spans = self.spans[before + torch.arange(len(row))]
        size = spans[:, 3] - spans[:, 2]
        inside = torch.arange(int(size.sum())) - torch.repeat_interleave(size.cumsum(0) - size, size)
        token = torch.repeat_interleave(spans[:, 2], size) + inside
        entity = torch.zeros(len(chosen), self.num_entities, width, dtype=torch.bool)
        entity[torch.repeat_interleave(row, size), torch.repeat_interleave(spans[:, 1], size), token] = True
        return entity

    def loader(self, index: Any, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> RelationLoader:
        """Batches of these instances; see `RelationLoader`."""
        return RelationLoader(self, index, batch_size, shuffle=shuffle, seed=seed)

    def vocabulary(
        self, index: Any, min_count: int = 1, column: str = "word", *, lower: bool = False
    ) -> tuple[str, ...]:
        """What occurs in these instances' texts so often, padding and unknown first, the most frequent next.

        Args:
            index: Training instances, int64 (n,).
            min_count: Fewest occurrences; a text counts once however many instances share it.
            column: ``"word"``, ``"pos"`` or ``"dep"``.
            lower: Count values that differ in case alone together, in lower case.
        """
        texts = torch.unique(self.text[torch.as_tensor(index, dtype=torch.int64)])
        used = torch.zeros(len(self.text_ptr) - 1, dtype=torch.bool)
        used[texts] = True
        inside = torch.repeat_interleave(used, self.text_ptr.diff())
        names, values = self._names(column), getattr(self, column)[inside]
        if lower:
            names, change = _lowered(names)
            values = change[values]
        counts = torch.bincount(values, minlength=len(names))[2:]
        order = torch.argsort(counts, descending=True, stable=True)
        return (PADDING, UNKNOWN, *(names[i + 2] for i in order.tolist() if counts[i] >= max(min_count, 1)))

    def _names(self, column: str) -> tuple[str, ...]:
        if column not in COLUMNS:
            raise ConfigError(f"column={column!r}: must be one of {', '.join(COLUMNS)}")
        return {"word": self.words, "pos": self.pos_names, "dep": self.dep_names}[column]

    def recoded(
        self, words: Sequence[str], column: str = "word", *, lower: bool = False, keep: bool = False
    ) -> RelationSet:
        """With another vocabulary, such as that of the training texts; what it lacks becomes unknown.

        Args:
            words: The vocabulary, padding and unknown first.
            column: ``"word"``, ``"pos"`` or ``"dep"``.
            lower: Look values up in lower case.
            keep: What the vocabulary lacks keeps its text, with a code of its own behind those of ``words``.
        """
        known = {w: i for i, w in enumerate(words)}
        own = [w.lower() if lower else w for w in self._names(column)]
        if keep:
            for value in own[2:]:
                known.setdefault(value, len(known))
        change = torch.tensor([known.get(value, 1) for value in own])
        names = {"word": "words", "pos": "pos_names", "dep": "dep_names"}[column]
        new: dict[str, Any] = {
            column: change[getattr(self, column)],
            names: tuple(known) if keep else tuple(words),
        }
        return replace(self, **new)

    def with_chain(self) -> RelationSet:
        """Every token hangs on the one before: edges for texts without a parse."""
        first = torch.zeros(len(self.word), dtype=torch.bool)
        first[self.text_ptr[:-1][self.text_ptr.diff() > 0]] = True
        place = torch.arange(len(self.word)) - torch.repeat_interleave(
            self.text_ptr[:-1], self.text_ptr.diff()
        )
        names = (PADDING, UNKNOWN, "root", "next")
        return replace(self, head=place - 1, dep=torch.where(first, 2, 3), dep_names=names)


class RelationLoader:
    """Goes over instances in batches; each pass shuffles anew, and pass k of a seed is always the same."""

    def __init__(
        self, relations: RelationSet, index: Any, batch_size: int, *, shuffle: bool = False, seed: int = 0
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        self.relations, self.batch_size = relations, batch_size
        self.index = torch.as_tensor(index, dtype=torch.int64).flatten()
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch_size)

    def __iter__(self) -> Iterator[RelationBatch]:
        order = self.index
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = order[torch.randperm(len(order), generator=generator)]
        self.epoch += 1
        for first in range(0, len(order), self.batch_size):
            yield self.relations.batch(order[first : first + self.batch_size])


def _lowered(names: tuple[str, ...]) -> tuple[tuple[str, ...], Tensor]:
    """Names in lower case, each once, and the new code of every old one."""
    code: dict[str, int] = {}
    change = [code.setdefault(name.lower(), len(code)) for name in names]
    return tuple(code), torch.tensor(change)
