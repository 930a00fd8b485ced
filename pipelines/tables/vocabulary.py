"""Vocabularies: from distinct strings to ids.

While it is fitted a `VocabularyBuilder` hands out provisional codes in the order of first appearance and
counts training rows; a batch costs one hash per distinct value, not per row. When all rows have been seen,
`finish` keeps the frequent values, orders them by count, and gives the table from provisional codes to ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .features import FIRST_ID, NULL_ID, UNSEEN_ID
from .values import Factor, stable_hash

if TYPE_CHECKING:
    import polars as pl


class _Memo:
    """Codes of the last dictionary: batches of one row group, or of one frame, repeat theirs."""

    def __init__(self) -> None:
        self.source: Any = None
        self.codes = np.zeros(0, np.int32)

    def get(self, factor: Factor) -> np.ndarray | None:
        source = factor.source
        if source is None or self.source is None or len(source) != len(self.source):
            return None
        return self.codes if source.equals(self.source) else None

    def put(self, factor: Factor, codes: np.ndarray) -> np.ndarray:
        self.source, self.codes = factor.source, codes
        return codes


def _shifted(physical: pl.Series, null: int) -> np.ndarray:
    """(n + 1,) int32: physical codes from `FIRST_ID` on, ``null`` where they are null, and `NULL_ID` last."""
    out = np.full(len(physical) + 1, NULL_ID, np.int32)
    if physical.null_count():
        missing = physical.is_null().to_numpy()
        np.add(physical.fill_null(0).to_numpy(), FIRST_ID, out=out[:-1], casting="unsafe")
        out[:-1][missing] = null
    else:
        np.add(physical.to_numpy(), FIRST_ID, out=out[:-1], casting="unsafe")
    return out


class VocabularyBuilder:
    """Grows with every new string and counts training rows.

    Args:
        name: Name of the vocabulary.
        min_count: Fewest training rows of a category that gets an id of its own.
        max_size: Most categories that get one; None for all.
    """

    def __init__(self, name: str, min_count: int = 2, max_size: int | None = None) -> None:
        import polars as pl

        self.name, self.min_count, self.max_size = name, min_count, max_size
        self._categories = pl.Categories.random()
        # polars forgets the codes of a Categories that no series uses.
        self._anchor = pl.Series([], dtype=pl.Categorical(self._categories))
        self._counts = np.zeros(1024, np.int64)  # by provisional code; grows by doubling
        self._size = FIRST_ID
        self._memo = _Memo()

    def codes(self, factor: Factor) -> np.ndarray:
        """(len(values) + 1,) int32 provisional code of each distinct value; the last one is null's."""
        known = self._memo.get(factor)
        return known if known is not None else self._memo.put(factor, self._insert(factor.values))

    def _insert(self, values: pl.Series) -> np.ndarray:
        out = _shifted(values.cast(self._anchor.dtype).to_physical(), NULL_ID)
        self._size = max(self._size, int(out.max(initial=0)) + 1)
        if self._size > len(self._counts):
            more = np.zeros(max(self._size, len(self._counts)), np.int64)
            self._counts = np.concatenate([self._counts, more])
        return out

    def count(self, codes: np.ndarray, times: np.ndarray) -> None:
        """Add ``times[i]`` training rows to provisional code ``codes[i]``."""
        np.add.at(self._counts, codes, times)

    def finish(self) -> tuple[Vocabulary, np.ndarray]:
        """The vocabulary, and the (provisional codes,) int32 table from a provisional code to its id."""
        import polars as pl

        counts = self._counts[: self._size]
        frequent = np.flatnonzero(counts[FIRST_ID:] >= self.min_count) + FIRST_ID
        physical = pl.Series((frequent - FIRST_ID).astype(np.uint32))
        strings = physical.cat.to(self._anchor.dtype).cast(pl.String)
        frame = pl.DataFrame({"value": strings, "count": counts[frequent], "code": frequent})
        frame = frame.sort(["count", "value"], descending=[True, False]).head(self.max_size or frame.height)
        table = np.full(self._size, UNSEEN_ID, np.int32)
        table[NULL_ID] = NULL_ID
        table[frame["code"].to_numpy()] = np.arange(FIRST_ID, FIRST_ID + frame.height, dtype=np.int32)
        kept = frame["count"].to_numpy()
        unseen = int(counts[UNSEEN_ID:].sum() - kept.sum())
        ids = np.concatenate([np.array([counts[NULL_ID], unseen], np.int64), kept])
        return Vocabulary(self.name, frame["value"], ids), table


class Vocabulary:
    """Fixed strings with their ids: ``FIRST_ID + position``.

    Args:
        name: Name of the vocabulary.
        values: Distinct strings, the most frequent first.
        counts: (2 + len(values),) int64 training rows by id; null and unseen come first.
    """

    def __init__(self, name: str, values: pl.Series, counts: np.ndarray) -> None:
        self.name, self.values, self.counts = name, values, counts
        self._positions: Any = None  # a polars expression: it keeps its strings hashed
        self._memo = _Memo()

    @property
    def size(self) -> int:
        """Number of ids, null and unseen included."""
        return FIRST_ID + len(self.values)

    def codes(self, factor: Factor) -> np.ndarray:
        """(len(values) + 1,) int32 id of each distinct value; the last one is null's."""
        known = self._memo.get(factor)
        return known if known is not None else self._memo.put(factor, self._find(factor.values))

    def _find(self, values: pl.Series) -> np.ndarray:
        import polars as pl

        if not len(self.values):
            out = np.full(len(values) + 1, UNSEEN_ID, np.int32)
        else:
            if self._positions is None:  # a cast by the type itself hashes all of its strings at every call
                self._positions = pl.first().cast(pl.Enum(self.values), strict=False).to_physical()
            out = _shifted(values.to_frame().select(self._positions).to_series(), UNSEEN_ID)
        out[-1] = NULL_ID
        if values.null_count():
            out[:-1][values.is_null().to_numpy()] = NULL_ID
        return out


class HashedVocabulary:
    """Ids by a stable hash: nothing is kept, unrelated categories may share an id.

    Args:
        name: Name of the vocabulary.
        buckets: Number of ids apart from null and unseen; unseen is never used.
    """

    def __init__(self, name: str, buckets: int, counts: np.ndarray | None = None) -> None:
        self.name, self.buckets = name, buckets
        self.counts = np.zeros(self.size, np.int64) if counts is None else counts
        self._memo = _Memo()

    @property
    def size(self) -> int:
        """Number of ids, null and unseen included."""
        return FIRST_ID + self.buckets

    def codes(self, factor: Factor) -> np.ndarray:
        """(len(values) + 1,) int32 id of each distinct value; the last one is null's."""
        known = self._memo.get(factor)
        if known is not None:
            return known
        out = np.full(len(factor.values) + 1, NULL_ID, np.int32)
        buckets = (stable_hash(factor.values) % np.uint64(self.buckets)).astype(np.int32)
        out[:-1] = np.where(factor.values.is_null().to_numpy(), NULL_ID, buckets + FIRST_ID)
        return self._memo.put(factor, out)

    def count(self, codes: np.ndarray, times: np.ndarray) -> None:
        """Add ``times[i]`` training rows to id ``codes[i]``."""
        np.add.at(self.counts, codes, times)

    def finish(self) -> tuple[HashedVocabulary, None]:
        """Itself; its codes are final."""
        return self, None


class Codebook:
    """One vocabulary as the fields that share it see it: growing while it is fitted, fixed afterwards."""

    def __init__(
        self, source: VocabularyBuilder | Vocabulary | HashedVocabulary, fixed: bool = False
    ) -> None:
        self.source = source
        self._table: np.ndarray | None = None
        self._finished = fixed or isinstance(source, Vocabulary)

    @property
    def vocabulary(self) -> Vocabulary | HashedVocabulary:
        """The fixed vocabulary."""
        assert not isinstance(self.source, VocabularyBuilder), "the vocabulary is still being built"
        return self.source

    def codes(self, factor: Factor) -> np.ndarray:
        """(len(values) + 1,) int32: provisional codes while fitting, ids afterwards."""
        return self.source.codes(factor)

    def count(self, codes: np.ndarray, times: np.ndarray) -> None:
        """Count training rows while fitting."""
        assert not isinstance(self.source, Vocabulary), "a fixed vocabulary does not count"
        self.source.count(codes, times)

    def finish(self) -> None:
        """Fix the vocabulary; further calls change nothing."""
        if not self._finished:
            assert not isinstance(self.source, Vocabulary)
            self.source, self._table = self.source.finish()
            self._finished = True

    def ids(self, codes: np.ndarray) -> np.ndarray:
        """Ids of provisional codes that were given out before `finish`."""
        return codes.astype(np.int32, copy=False) if self._table is None else np.take(self._table, codes)
