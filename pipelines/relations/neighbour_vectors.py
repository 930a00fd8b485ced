"""Word vectors out of the texts at hand: which words stand near which, factorised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from .container import RelationSet

REACH = 5
"""Farthest neighbour that counts; one k places away counts 1 / k."""


def neighbour_vectors(
    relations: RelationSet, texts: Tensor, width: int, *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A truncated singular value decomposition of positive pointwise mutual information.

    Levy, Goldberg: Neural word embedding as implicit matrix factorization, NIPS 2014; counts of contexts are
    raised to 0.75, and singular values enter by their roots (Levy, Goldberg, Dagan, TACL 2015).

    Args:
        relations: The set, in the vocabulary that the vectors are for; V words.
        texts: Which texts count, int64.
        width: D.
        seed: Of the decomposition.

    Returns:
        Vectors (V, D) with a standard deviation of 0.1 over all numbers, and which words have one: those that
        ever stand near another word; in a vocabulary of D words or fewer none does.
    """
    from sklearn.decomposition import TruncatedSVD

    information = _information(_counts(relations, texts))
    vectors = np.zeros((len(relations.words), width), np.float32)
    known = np.diff(information.indptr) > 0
    if information.shape[0] <= width or not known.any():
        return vectors, np.zeros_like(known)
    found = TruncatedSVD(width, random_state=seed).fit(information)
    root = np.sqrt(np.maximum(found.singular_values_, 1e-9))
    vectors[:] = found.transform(information) / root
    vectors *= 0.1 / vectors.std()
    return vectors, known


def _counts(relations: RelationSet, texts: Tensor) -> csr_array:
    """How often words stand near each other, (V, V)."""
    one, other, weight = [], [], []
    for text in texts.tolist():
        word = relations.word[relations.text_ptr[text] : relations.text_ptr[text + 1]].numpy()
        for place in range(1, min(REACH + 1, len(word))):
            one += [word[:-place], word[place:]]
            other += [word[place:], word[:-place]]
            weight.append(np.full(2 * (len(word) - place), 1 / place))
    size = len(relations.words)
    if not one:
        return csr_array((size, size), dtype=np.float64)
    pairs = np.concatenate(one), np.concatenate(other)
    return coo_array((np.concatenate(weight), pairs), shape=(size, size)).tocsr()


def _information(counts: csr_array) -> csr_array:
    """``max(0, log(n_ij N / (n_i n_j^0.75)))``, with the last factor scaled to the sum N."""
    total, rows = counts.sum(), counts.sum(1)
    columns = counts.sum(0) ** 0.75
    columns = columns * (total / max(columns.sum(), 1e-12))
    entries = counts.tocoo()
    value = np.log(entries.data * total / (rows[entries.row] * columns[entries.col]))
    kept = value > 0
    pairs = entries.row[kept], entries.col[kept]
    return coo_array((value[kept], pairs), shape=counts.shape).tocsr()
