"""The loader gives every row once, in an order that depends on seed and epoch alone, from any step on."""

from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.tables import Batch, BatchLoader, EncodedTable, Split, TableEncoder, TableSchema


def encode(rows: int, numeric: bool = True, categorical: bool = True) -> EncodedTable:
    """A table whose column ``row`` is the number of the row."""
    columns: dict[str, object] = {"y": [i % 2 for i in range(rows)]}
    if numeric:
        columns["row"] = np.arange(rows, dtype=np.float32)
    if categorical:
        columns["c"] = [f"c{i}" for i in range(rows)]
    schema = TableSchema.infer(pl.DataFrame(columns), "y")
    if numeric:
        schema = schema.replace("row", role="numeric", transform="none")
    if categorical:
        schema = schema.replace("c", min_count=1)
    return TableEncoder(schema).fit_encode(pl.DataFrame(columns), Split.none())["train"]


@pytest.fixture(scope="module")
def table() -> EncodedTable:
    return encode(5000)


def rows(batches: list[Batch]) -> list[list[int]]:
    return [b.features.numeric[:, 0].long().tolist() for b in batches]


def epoch(loader: BatchLoader, number: int = 0, start: int = 0) -> list[list[int]]:
    return rows(list(loader.epoch(number, start)))


def small_buffer(table: EncodedTable) -> int:
    return table.row_bytes * 2048


def test_stored_order(table: EncodedTable) -> None:
    loader = BatchLoader(table, 512)
    found = epoch(loader)
    assert [r for b in found for r in b] == list(range(5000))
    assert [len(b) for b in found] == [512] * 9 + [392]
    assert loader.steps == len(found)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("batch", [7, 512, 4096])
def test_shuffled_order(table: EncodedTable, bounded: bool, batch: int) -> None:
    options = {"buffer_bytes": small_buffer(table)} if bounded else {}
    loader = BatchLoader(table, batch, shuffle=True, seed=3, **options)
    one, again, other = epoch(loader, 0), epoch(loader, 0), epoch(loader, 1)
    assert one == again
    assert one != other
    flat = [r for b in one for r in b]
    assert sorted(flat) == list(range(5000))
    assert len(one) == loader.steps
    assert one != epoch(BatchLoader(table, batch, shuffle=True, seed=4, **options), 0)


def test_shuffle_is_thorough(table: EncodedTable) -> None:
    flat = np.array([r for b in epoch(BatchLoader(table, 500, shuffle=True)) for r in b])
    assert abs(np.corrcoef(flat, np.arange(5000))[0, 1]) < 0.05
    assert (np.abs(np.diff(flat)) == 1).mean() < 0.01


def test_bounded_shuffle_mixes_within_and_between_buffers(table: EncodedTable) -> None:
    loader = BatchLoader(table, 500, shuffle=True, buffer_bytes=small_buffer(table))
    flat = np.array([r for b in epoch(loader) for r in b])
    assert (np.abs(np.diff(flat)) == 1).mean() < 0.01
    assert len(set((flat[:1900] // 1024).tolist())) == 2  # a buffer of two runs, one of them perhaps short
    starts = {
        tuple(np.unique(np.array([r for b in epoch(loader, e) for r in b])[:1024] // 1024)) for e in range(8)
    }
    assert len(starts) > 2  # which ones differs by epoch


@settings(max_examples=40)
@given(st.integers(1, 700), st.integers(0, 12), st.booleans(), st.booleans(), st.integers(0, 3))
def test_resume_in_the_middle(batch: int, start: int, shuffle: bool, bounded: bool, number: int) -> None:
    table = RESUME
    options = {"buffer_bytes": small_buffer(table)} if bounded else {}
    loader = BatchLoader(table, batch, shuffle=shuffle, seed=1, **options)
    assert epoch(loader, number, start) == epoch(loader, number)[start:]


RESUME = encode(3100)


def test_resume_does_not_read_what_it_skips(table: EncodedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    block, gather = EncodedTable.block, EncodedTable.gather
    monkeypatch.setattr(
        EncodedTable, "block", lambda self, a, b: (read.append(min(b, len(self)) - a), block(self, a, b))[1]
    )
    monkeypatch.setattr(
        EncodedTable, "gather", lambda self, s: (read.extend(b - a for a, b in s), gather(self, s))[1]
    )
    for shuffle in (False, True):
        read.clear()
        loader = BatchLoader(table, 512, shuffle=shuffle, buffer_bytes=small_buffer(table))
        list(loader.epoch(0, 9))
        assert 0 < sum(read) <= 2048


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_every_batch(table: EncodedTable, world: int, shuffle: bool) -> None:
    single = epoch(BatchLoader(table, 300, shuffle=shuffle, seed=2))
    loaders = [
        BatchLoader(table, 300, shuffle=shuffle, seed=2, rank=r, world_size=world) for r in range(world)
    ]
    shares = [epoch(loader) for loader in loaders]
    assert len({loader.steps for loader in loaders}) == 1
    for step, whole in enumerate(single):
        for rank in range(world):
            assert shares[rank][step] == whole[rank::world]


def test_last_batches(table: EncodedTable) -> None:
    assert BatchLoader(table, 4999, drop_last=True).steps == 1
    assert BatchLoader(table, 4999).steps == 2
    # One row cannot be shared by two: training leaves the step out on both, scoring gives one of them none.
    assert BatchLoader(table, 4999, shuffle=True, world_size=2).steps == 1
    scored = [epoch(BatchLoader(table, 4999, rank=r, world_size=2)) for r in (0, 1)]
    assert [len(s[1]) for s in scored] == [1, 0]
    assert sorted(r for s in scored for b in s for r in b) == list(range(5000))


def test_small_tables_and_large_batches() -> None:
    two = encode(2)
    assert epoch(BatchLoader(two, 4096)) == [[0, 1]]
    assert sorted(epoch(BatchLoader(two, 4096, shuffle=True))[0]) == [0, 1]
    assert epoch(BatchLoader(two, 1)) == [[0], [1]]


def test_tables_without_numbers_or_categories() -> None:
    (batch,) = BatchLoader(encode(10, numeric=False), 50, shuffle=True).epoch(0)
    assert batch.features.numeric.shape == (10, 0)
    assert sorted(batch.features.categorical[:, 0].tolist()) == list(range(2, 12))
    (batch,) = BatchLoader(encode(10, categorical=False), 50, shuffle=True).epoch(0)
    assert batch.features.categorical.shape == (10, 0)
    assert sorted(rows([batch])[0]) == list(range(10))


def test_tensors_are_contiguous_and_typed(table: EncodedTable) -> None:
    for loader in (BatchLoader(table, 100, rank=1, world_size=2), BatchLoader(table, 100, shuffle=True)):
        batch = next(iter(loader))
        assert batch.features.categorical.dtype == torch.int32
        assert batch.features.numeric.dtype == torch.float32
        assert batch.features.categorical.is_contiguous()
        assert batch.weights is None


def test_rows_stay_together(table: EncodedTable) -> None:
    whole = table.read(0, 5000)
    for batch in BatchLoader(table, 333, shuffle=True, buffer_bytes=small_buffer(table)).epoch(5):
        index = batch.features.numeric[:, 0].long()
        assert torch.equal(batch.features.categorical, whole.features.categorical[index])
        assert torch.equal(batch.labels, whole.labels[index])


def test_dropping_the_iterator_ends_the_thread(table: EncodedTable) -> None:
    iterator = BatchLoader(table, 10, shuffle=True).epoch(0)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "graphrec-loader"]


def test_reading_errors_reach_the_consumer(table: EncodedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: EncodedTable, start: int, stop: int) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr(EncodedTable, "block", fail)
    with pytest.raises(OSError, match="disk is gone"):
        list(BatchLoader(table, 10).epoch(0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1, "world_size": 2}, "at least the 2 processes"),
        ({"batch_size": 8, "rank": 2, "world_size": 2}, "rank=2"),
    ],
)
def test_mistakes(table: EncodedTable, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BatchLoader(table, **options)


def test_too_few_rows_for_the_ranks() -> None:
    with pytest.raises(DataError, match="2 rows are too few for 3 processes"):
        BatchLoader(encode(2), 6, shuffle=True, world_size=3)
