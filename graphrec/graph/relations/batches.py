"""What relation networks read: texts laid end to end with the edges between their tokens, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.errors import ConfigError
from graphrec.pipelines.relations import (
    PackedRelations,
    RelationSet,
    WordPieces,
    pack,
    shortest_stretches,
    word_pieces,
)

from ..topology import Topology

EDGES = ("tree", "window", "both", "none")
PLACES = 8
"""Distances told apart to either side; see `token_places`."""
BUCKETS = 8192
"""Numbers that the pieces of words are hashed to."""


class TextBatch(NamedTuple):
    """Relation instances with their edges.

    Attributes:
        texts: Tokens, entities and rows; see `PackedRelations`.
        topology: Edges between tokens, without loops.
        kind: What each edge of ``topology.graph`` is, int64 (E,); see `token_edges`.
        labels: Class of each instance, int64 (b,).
        vocabulary: Which of ``pieces`` each token has, int64 (N,).
        pieces: Of the batch's different words.
        places: How far each token is from the nearest mention of each entity of the row's instance, int64
            (N, K); see `token_places`. None in rows that instances share.
        stretch: Positions among the N of the tokens of each instance's shortest stretch, int64 (M,).
        stretch_ptr: Those of instance i begin at ``stretch_ptr[i]``; int64 (b + 1,).
    """

    texts: PackedRelations
    topology: Topology
    kind: Tensor
    labels: Tensor
    vocabulary: Tensor
    pieces: WordPieces
    places: Tensor | None
    stretch: Tensor
    stretch_ptr: Tensor


def token_edges(texts: PackedRelations, deps: int, *, edges: str, reach: int) -> tuple[Topology, Tensor]:
    """Edges between the tokens of each row.

    ``"tree"``: every token and its head, both ways. A detached token has no edges. ``"window"``: every token
    and those up to ``reach`` places away, for texts without a parse; these are no syntax. ``"both"`` and
    ``"none"`` are what they say.

    Args:
        texts: N tokens.
        deps: Dependency labels in the vocabulary.
        edges: One of the four.
        reach: Of windows, in tokens.

    Returns:
        The edges by target, and the kind of each, int64 (E,): ``2 * label`` from a head to its dependent,
        ``2 * label + 1`` back, and from ``2 * deps`` on one for each place of a neighbour, the farthest
        before the target first.
    """
    if edges not in EDGES:
        raise ConfigError(f"edges={edges!r}: must be one of {', '.join(EDGES)}")
    source, target, kind = [], [], []
    if edges in ("tree", "both"):
        token = (texts.head >= 0).nonzero().flatten()
        head, label = texts.head[token], texts.dep[token]
        source += [head, token]
        target += [token, head]
        kind += [2 * label, 2 * label + 1]
    if edges in ("window", "both"):
        token = torch.arange(len(texts.word), device=texts.ptr.device)
        row = torch.repeat_interleave(torch.arange(len(texts.ptr) - 1, device=token.device), texts.ptr.diff())
        for place in (*range(-reach, 0), *range(1, reach + 1)):
            other = (token + place).clamp(0, max(len(token) - 1, 0))
            inside = (row[other] == row) & (other == token + place)
            source.append(other[inside])
            target.append(token[inside])
            kind.append(torch.full_like(token[inside], 2 * deps + reach + place - (place > 0)))
    nothing = texts.word.new_zeros(0)
    pair = torch.stack([torch.cat([nothing, *source]), torch.cat([nothing, *target])])
    topology = Topology.of(pair, len(texts.word))
    return topology, torch.cat([nothing, *kind])[topology.order]


def token_places(texts: PackedRelations) -> Tensor:
    """How far each token is from the nearest mention of each entity, int64 (N, K), as a number.

    ``PLACES`` is a token of the mention, more is behind it and less before it: one step for each of the first
    three tokens, then one for each doubling of the distance. The farthest step also stands for an entity
    without a mention. Of two mentions equally near, the one before counts.
    """
    tokens, far = len(texts.word), 1 << 40
    row = torch.repeat_interleave(texts.ptr.diff())
    at = torch.arange(tokens)
    begin, end = texts.ptr[:-1][row].unsqueeze(1), texts.ptr[1:][row].unsqueeze(1)
    here = torch.where(texts.mark, at.unsqueeze(1), -far)
    before = here.cummax(0).values if tokens else here
    ahead = (
        -torch.where(texts.mark, -at.unsqueeze(1), -far).flip(0).cummax(0).values.flip(0) if tokens else here
    )
    since = torch.where(before >= begin, at.unsqueeze(1) - before, far)
    until = torch.where(ahead < end, ahead - at.unsqueeze(1), far)
    nearest = since.minimum(until)
    steps = (nearest / 3).clamp(min=1).log2().ceil().long() + nearest.clamp(max=3)
    steps = steps.clamp(max=PLACES)
    return torch.where(since <= until, PLACES + steps, PLACES - steps)


def edge_kinds(deps: int, reach: int) -> int:
    """How many kinds of edges there are."""
    return 2 * deps + 2 * reach


class TextBatches:
    """A `BatchSource` of relation instances, in batches of about equal length.

    Shuffled, each epoch deals the instances anew into pools, sorts each pool by length, and takes its batches
    in random order. Else all are sorted by length, and ``order`` says where they came from. Where instances
    share a text and rows are shared, they stay together.

    Args:
        relations: The set, in the network's vocabulary.
        index: Which instances.
        batch_size: Instances in a batch.
        edges, reach: See `token_edges`.
        shared: One row for each text instead of each instance; see `pack`.
        shuffle: Whether training's order is wanted.
        seed: Of the orders.
        pool: Batches in a pool.
    """

    ragged = "another number of tokens"
    """Why `training.compiled` refuses it."""

    def __init__(
        self,
        relations: RelationSet,
        index: Tensor,
        batch_size: int,
        *,
        edges: str,
        reach: int,
        shared: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        pool: int = 20,
    ) -> None:
        self.relations, self.index, self.batch_size = relations, index, int(batch_size)
        self.edges, self.reach, self.shared = edges, reach, shared
        self.shuffle, self.seed, self.pool = shuffle, seed, pool
        self.steps = -(-len(index) // batch_size)
        self.pieces = word_pieces(relations.words, BUCKETS)
        self.stretches = shortest_stretches(relations)
        self.order = self._by_length(torch.arange(len(index)))

    def _by_length(self, places: Tensor) -> Tensor:
        """Places in ``index``, sorted by length and, at the same length, by text."""
        chosen = self.index[places]
        by_text = torch.argsort(self.relations.text[chosen], stable=True)
        by_length = torch.argsort(self.relations.lengths()[chosen[by_text]], stable=True)
        return places[by_text[by_length]]

    def _dealt(self, epoch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.shared:  # texts are dealt, with all of their instances
            number = torch.unique(self.relations.text[self.index], return_inverse=True)[1]
            rank = torch.randperm(int(number.max()) + 1, generator=generator)
            dealt = torch.argsort(rank[number], stable=True)
        else:
            dealt = torch.randperm(len(self.index), generator=generator)
        pools = dealt.split(self.pool * self.batch_size)
        batches = [batch for pool in pools for batch in self._by_length(pool).split(self.batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[TextBatch]:
        """The batches of an epoch, from a step on."""
        batches = self._dealt(epoch) if self.shuffle else list(self.order.split(self.batch_size))
        for places in batches[start_step : self.steps]:
            yield self.cut(self.index[places])

    def cut(self, chosen: Tensor) -> TextBatch:
        """These instances as a batch."""
        texts = pack(self.relations, chosen, shared=self.shared)
        deps = len(self.relations.dep_names)
        topology, kind = token_edges(texts, deps, edges=self.edges, reach=self.reach)
        words, vocabulary = torch.unique(texts.word, return_inverse=True)
        places = None if self.shared else token_places(texts)
        stretch, stretch_ptr = _runs(self.stretches[chosen] + texts.ptr[texts.row].unsqueeze(1))
        return TextBatch(
            texts,
            topology,
            kind,
            texts.labels,
            vocabulary,
            self.pieces.of(words),
            places,
            stretch,
            stretch_ptr,
        )


def _runs(bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Positions from the first to the second of each pair (b, 2), one after another, and their boundaries."""
    first, length = bounds[:, 0], bounds.diff(dim=1)[:, 0]
    ptr = torch.nn.functional.pad(length.cumsum(0), (1, 0))
    return torch.repeat_interleave(first - ptr[:-1], length) + torch.arange(int(ptr[-1])), ptr
