"""Batches in a random or the stored order: the same on every machine, from any step on, shared by ranks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from graphrec.errors import ConfigError, DataError

from .features import Batch
from .shards import Block, concatenate

if TYPE_CHECKING:
    from .shards import EncodedTable

_RUN = 1024
"""Consecutive rows that are read together when shuffling."""

_PREFETCH = 4


class BatchLoader:
    """Batches of an encoded table.

    Shuffling draws runs of 1,024 consecutive rows in random order into a buffer and permutes the rows of the
    buffer: a full permutation for a table that fits, and bounded memory for one that does not.

    Args:
        encoded: The rows.
        batch_size: Rows of a global batch; with several ranks each gets its share of them.
        shuffle: Whether the order is random; it depends on ``seed`` and the epoch and on nothing else.
        seed: Of the order.
        rank: Of this process: it gets rows ``rank, rank + world_size, ...`` of every global batch.
        world_size: Number of processes.
        drop_last: Leave out a last batch that is smaller than the others.
        buffer_bytes: Size of the shuffle buffer.

    Raises:
        ConfigError: An argument is out of range.
        DataError: A rank would never get a row.
    """

    def __init__(
        self,
        encoded: EncodedTable,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        buffer_bytes: int = 64 << 20,
    ) -> None:
        if batch_size < world_size or batch_size < 1:
            raise ConfigError(
                f"batch_size={batch_size} must be at least 1 and at least the {world_size} processes"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} must be from 0 to world_size - 1 = {world_size - 1}")
        self.encoded, self.batch_size, self.shuffle, self.seed = encoded, batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        runs = max(1, buffer_bytes // max(1, encoded.row_bytes) // _RUN)
        self._buffer_rows = runs * _RUN if shuffle else max(_RUN, batch_size)
        if shuffle and self.steps == 0:
            raise DataError(
                f"{len(encoded)} rows are too few for {world_size} processes and batch_size={batch_size}"
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same on every rank."""
        whole, rest = divmod(len(self.encoded), self.batch_size)
        # A training step of a rank without rows would leave the others waiting.
        dropped = self.drop_last or (self.shuffle and rest < self.world_size)
        return whole + (1 if rest and not dropped else 0)

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start_step`` on; skipped ones are not read."""
        return _prefetched(self._blocks(epoch, start_step))

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def _blocks(self, epoch: int, start_step: int) -> Iterator[Block]:
        position = start_step * self.batch_size
        end = min(self.steps * self.batch_size, len(self.encoded))
        waiting: Block | None = None
        for start, buffer, order in self._buffers(epoch, position):
            at = max(0, position - start)
            stop = min(len(buffer), end - start)
            while at < stop:
                missing = self.batch_size - (0 if waiting is None else len(waiting))
                rows = _rows(buffer, order, at, min(at + missing, stop))
                at += len(rows)
                waiting = rows if waiting is None else concatenate([waiting, rows])
                if len(waiting) == self.batch_size or start + at == end:
                    yield self._share(waiting)
                    waiting = None
            del buffer  # before the next one is read

    def _share(self, block: Block) -> Block:
        if self.world_size == 1:
            return block
        return block.map(lambda a: a[self.rank :: self.world_size])

    def _buffers(self, epoch: int, position: int) -> Iterator[tuple[int, Block, np.ndarray | None]]:
        """Buffers from the one that holds row ``position`` of the epoch: first row, rows, and their order."""
        total, size = len(self.encoded), self._buffer_rows
        if not self.shuffle:
            for start in range(position // size * size, total, size):
                yield start, self.encoded.block(start, min(start + size, total)), None
            return
        runs = np.random.default_rng([self.seed, epoch]).permutation(-(-total // _RUN))
        start, per_buffer = 0, size // _RUN
        for number, first in enumerate(range(0, len(runs), per_buffer)):
            chosen = np.sort(runs[first : first + per_buffer])
            rows = int(np.minimum((chosen + 1) * _RUN, total).sum() - (chosen * _RUN).sum())
            if start + rows > position:
                order = np.random.default_rng([self.seed, epoch, number]).permutation(rows)
                yield start, self._gather(chosen), order
            start += rows

    def _gather(self, runs: np.ndarray) -> Block:
        """Rows of sorted runs; neighbours are read at once."""
        breaks = np.flatnonzero(np.diff(runs) > 1) + 1
        spans = [(int(p[0]) * _RUN, (int(p[-1]) + 1) * _RUN) for p in np.split(runs, breaks)]
        return self.encoded.gather(spans)


def _rows(buffer: Block, order: np.ndarray | None, start: int, stop: int) -> Block:
    if order is None:
        return buffer.rows(start, stop)
    index = order[start:stop]
    return buffer.map(lambda a: np.take(a, index, axis=0))


class _Stop:
    """Marks the end of a queue, with the exception that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def _prefetched(blocks: Iterator[Block]) -> Iterator[Batch]:
    """Batches prepared by a thread, a few ahead; the thread ends when the iterator is dropped."""
    ready: queue.Queue[Batch | _Stop] = queue.Queue(_PREFETCH)
    stopped = threading.Event()

    def offer(item: Batch | _Stop) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for block in blocks:
                if not offer(block.to_batch()):
                    return
            offer(_Stop())
        except BaseException as error:  # handed to the consumer, which raises it
            offer(_Stop(error))

    thread = threading.Thread(target=work, name="graphrec-loader", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Stop):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
