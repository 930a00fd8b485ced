"""What relation networks know of words by themselves: vectors of tokens, and scores of bags of words.

Symbols: N tokens, b instances, V words in the vocabulary, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.kernels.graph import segment_reduce

from .batches import BUCKETS, PLACES, TextBatch

UNKNOWN_WORD = 1


class PieceTable(nn.Module):
    """Rows of words, and the mean or sum of rows of their pieces, for each token.

    Words that the vocabulary lacks share a row, but have pieces of their own. What training loses, by
    ``lost``, is an unknown word without pieces.

    Args:
        words: V.
        width: Of a row.
        pieces: Whether there are any.
        mode: ``"mean"`` or ``"sum"``, over a word's pieces.
    """

    def __init__(self, words: int, width: int, *, pieces: bool, mode: str) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.piece = nn.EmbeddingBag(BUCKETS, width, mode=mode) if pieces else None

    def forward(self, batch: TextBatch, lost: Tensor | None) -> Tensor:
        """(N, width); ``lost`` is bool (N,) or None."""
        word = batch.texts.word
        word = word.masked_fill(word >= self.word.num_embeddings, UNKNOWN_WORD)
        if lost is not None:
            word = word.masked_fill(lost, UNKNOWN_WORD)
        found: Tensor = self.word(word)
        if self.piece is None:
            return found
        pieces = self.piece(batch.pieces.ids, batch.pieces.ptr[:-1])[batch.vocabulary]
        return found + (pieces if lost is None else pieces * ~lost.unsqueeze(1))


class TokenEmbedding(nn.Module):
    """A vector for each token: word and pieces, part of speech, marks of the entities, distances from them.

    Args:
        words, pos: Words and parts of speech in the vocabularies.
        entities: K.
        word_dim, pos_dim: Widths; 0 for no parts of speech.
        mark_dim: Width of what says which entities a token belongs to; 0 for none.
        place_dim: Width, for each entity, of what says how far away it is; 0 for none. See `token_places`.
        pieces: Whether words have pieces.
        dropout: Of the vectors.

    Attributes:
        width: Of a vector.
        shared: Whether all instances of a text see it alike, so that it can be read once for all of them.
    """

    def __init__(
        self,
        words: int,
        pos: int,
        entities: int,
        *,
        word_dim: int,
        pos_dim: int,
        mark_dim: int,
        place_dim: int,
        pieces: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.table = PieceTable(words, word_dim, pieces=pieces, mode="mean")
        self.pos = nn.Embedding(pos, pos_dim) if pos_dim else None
        self.mark = nn.Linear(entities, mark_dim, bias=False) if mark_dim else None
        self.place = nn.ModuleList(
            nn.Embedding(2 * PLACES + 1, place_dim) for _ in range(entities if place_dim else 0)
        )
        self.dropout = nn.Dropout(dropout)
        self.width = word_dim + pos_dim + mark_dim + len(self.place) * place_dim
        self.shared = not mark_dim and not place_dim
        nn.init.uniform_(self.table.word.weight, -0.1, 0.1)
        if self.table.piece is not None:
            nn.init.uniform_(self.table.piece.weight, -0.1, 0.1)
        for one in self.place:
            nn.init.normal_(one.weight, std=0.1)  # type: ignore[arg-type]

    def forward(self, batch: TextBatch, lost: Tensor | None) -> Tensor:
        """(N, width)."""
        parts = [self.table(batch, lost)]
        if self.pos is not None:
            parts.append(self.pos(batch.texts.pos))
        if self.mark is not None:
            parts.append(self.mark(batch.texts.mark.to(parts[0].dtype)))
        if len(self.place):
            assert batch.places is not None, "rows that instances share have no places"
            parts += [one(batch.places[:, k]) for k, one in enumerate(self.place)]
        return self.dropout(torch.cat(parts, 1))


class BagOfWords(nn.Module):
    """Scores of the classes as sums over words and their pieces, the wide part of a wide and deep network.

    Once over the whole text and once, with other weights, over the instance's shortest stretch; each sum is
    divided by the root of its number of tokens. All weights begin at zero. Cheng et al., Wide & deep learning
    for recommender systems, arXiv:1606.07792.

    Args:
        words: V.
        classes: C.
        pieces: Whether words have pieces.
    """

    def __init__(self, words: int, classes: int, *, pieces: bool) -> None:
        super().__init__()
        self.table = PieceTable(words, 2 * classes, pieces=pieces, mode="sum")
        for one in self.parameters():
            nn.init.zeros_(one)

    def forward(self, batch: TextBatch, lost: Tensor | None) -> Tensor:
        """(b, C)."""
        texts = batch.texts
        whole, near = self.table(batch, lost).chunk(2, 1)
        text = _averaged(whole, texts.ptr)[texts.row]
        return text + _averaged(near[batch.stretch], batch.stretch_ptr)


def _averaged(x: Tensor, ptr: Tensor) -> Tensor:
    """Sums of segments by the root of their length."""
    return segment_reduce(x, ptr) / ptr.diff().clamp(min=1).sqrt().unsqueeze(1)
