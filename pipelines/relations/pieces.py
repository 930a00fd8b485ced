"""Beginnings and ends of words as numbers, so that *inhibits* and *inhibitor* have something in common.

After fastText (Bojanowski et al., arXiv:1607.04606), which sums vectors of all runs of letters; English
inflects at the ends, so only these are taken.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ranges import ranges

FIRST, LAST = (3, 4, 5, 6), (3, 4)
"""Lengths of the beginnings and ends that are looked at."""


class WordPieces(NamedTuple):
    """Pieces of some words.

    Attributes:
        ids: Their numbers, word after word, int64 (P,).
        ptr: Word w has ``ids[ptr[w] : ptr[w + 1]]``; int64 (W + 1,).
    """

    ids: Tensor
    ptr: Tensor

    def of(self, words: Tensor) -> WordPieces:
        """Those of other words, by their numbers, int64 (V,)."""
        place, ptr = ranges(self.ptr, words)
        return WordPieces(self.ids[place], ptr)


def word_pieces(words: Sequence[str], buckets: int) -> WordPieces:
    """The pieces of a vocabulary, hashed.

    Words of fewer than three letters have none, nor have the first two, which are padding and unknown. The
    hash (CRC-32) is the same on every machine and in every process.

    Args:
        words: The vocabulary.
        buckets: Numbers that pieces share.
    """
    found = [[] if place < 2 else _hashed(word, buckets) for place, word in enumerate(words)]
    sizes = torch.tensor([len(one) for one in found], dtype=torch.int64)
    ids = torch.tensor([number for one in found for number in one], dtype=torch.int64)
    return WordPieces(ids, torch.nn.functional.pad(sizes.cumsum(0), (1, 0)))


def _hashed(word: str, buckets: int) -> list[int]:
    pieces = [f"{word[:size]}*" for size in FIRST if len(word) >= size]
    pieces += [f"*{word[-size:]}" for size in LAST if len(word) >= size]
    return sorted({zlib.crc32(piece.encode()) % buckets for piece in pieces})
