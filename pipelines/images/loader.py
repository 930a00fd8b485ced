"""Batches of pictures: order and augmentation depend on seed, epoch, step and rank, and on nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from graphrec.errors import ConfigError, DataError, RunError

from .augment import Augment
from .batched import augment_batch
from .container import ImageSet
from .preprocess import Preprocess
from .stores import ArrayStore


class ImageBatch(NamedTuple):
    """Pictures with what a loss needs. A NamedTuple, so torch treats it as a pytree.

    Attributes:
        images: float32 (B, C, H, W), normalised.
        labels: Class of each, int64 (B,); None without labels.
        targets: (B, classes), rows summing to 1, where mixup or CutMix mixed the pictures; else None.
        weights: How much each counts, float32 (B,), of mixed pictures by their shares; None for all the same.
    """

    images: Tensor
    labels: Tensor | None
    targets: Tensor | None = None
    weights: Tensor | None = None


class ImageLoader:
    """Batches of an image set, for the trainer or for a loop.

    Args:
        images: The pictures.
        prep: What the model is to see.
        batch_size: Pictures of a global batch; with several ranks each gets its share of them.
        augment: Random changes; None for none.
        indices: Which pictures, int64 (n,), such as a part of a split; all if None.
        shuffle: Whether the order is random.
        seed: Of order and augmentation.
        rank: Of this process: it gets pictures ``rank, rank + world_size, ...`` of every global batch.
        world_size: Number of processes.
        drop_last: Leave out a last batch that is smaller than the others.
        workers: Processes that decode; 0 decodes in this one. They change the speed, never a batch.

    Raises:
        ConfigError: An argument is out of range.
        DataError: A rank would never get a picture, or there are no labels to mix.
    """

    def __init__(
        self,
        images: ImageSet,
        prep: Preprocess,
        batch_size: int,
        *,
        augment: Augment | None = None,
        indices: Any = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        workers: int = 0,
    ) -> None:
        if batch_size < world_size or batch_size < 1:
            raise ConfigError(
                f"batch_size={batch_size} must be at least 1 and at least the {world_size} processes"
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} must be from 0 to world_size - 1 = {world_size - 1}")
        given: Any = workers
        if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < 0:
            raise ConfigError(f"workers={workers!r}: must be a whole number from 0 up")
        self.images = images if indices is None else images.subset(indices)
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.drop_last, self.workers, self.shuffle = drop_last, workers, shuffle
        if augment is not None and augment.mixes and images.labels is None:
            raise DataError(f"{images.title}: mixup and CutMix need labels")
        if shuffle and self.steps == 0:
            raise DataError(
                f"{len(self.images)} images are too few for {world_size} processes and "
                f"batch_size={batch_size}"
            )
        self._plan = _Plan(self.images, prep, augment, batch_size, shuffle, seed, rank, world_size)
        self._keys = _Keys()

    @property
    def steps(self) -> int:
        """Batches of an epoch, the same on every rank."""
        whole, rest = divmod(len(self.images), self.batch_size)
        # A training step of a rank without pictures would leave the others waiting.
        dropped = self.drop_last or (self.shuffle and rest < self.world_size)
        return whole + (1 if rest and not dropped else 0)

    @property
    def fingerprint(self) -> str:
        """Digest of the pictures, the labels, and of what is done to them."""
        return f"{self.images.fingerprint()} {self._plan.prep} {self._plan.augment} {self._plan.seed}"

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[ImageBatch]:
        """The batches of an epoch from ``start_step`` on; skipped ones are not decoded.

        Raises:
            DataError: A file is broken; it names it, also out of a worker.
            RunError: A worker was ended from outside.
        """
        keys = [(epoch, step) for step in range(start_step, self.steps)]
        if not self.workers:
            yield from (self._plan.batch(*key) for key in keys)
            return
        self._keys.keys = keys
        with self._workers_alive():
            for found in self._pool:
                if isinstance(found, str):
                    raise DataError(found)
                yield found

    def __iter__(self) -> Iterator[ImageBatch]:
        return self.epoch(0)

    @cached_property
    def _pool(self) -> DataLoader[Any]:
        """Workers that live as long as the loader."""
        return DataLoader(
            self._plan,
            sampler=self._keys,
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=True,
            worker_init_fn=_one_thread,
        )

    @contextmanager
    def _workers_alive(self) -> Iterator[None]:
        """Tell of a worker that was ended, and forget it: torch tells of it again at every child's end."""
        try:
            yield
        except RuntimeError as error:
            said = " ".join(str(error).split())
            if "DataLoader worker" not in said:
                raise
            if (left := getattr(vars(self).pop("_pool"), "_iterator", None)) is not None:
                left._shutdown_workers()
            raise RunError(
                f"workers: a process that reads images was ended from outside ({said}), "
                "as where memory, or that shared by processes, is short; take fewer, or smaller batches"
            ) from error


class _Keys(Sampler[tuple[int, int]]):
    """Epoch and step of each batch that the workers are to make."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(eq=False)
class _Plan(Dataset[Any]):
    """Makes any batch of any epoch; what the workers get."""

    images: ImageSet
    prep: Preprocess
    augment: Augment | None
    batch_size: int
    shuffle: bool
    seed: int
    rank: int
    world_size: int

    def __getitem__(self, key: tuple[int, int]) -> ImageBatch | str:
        """A batch, or what is wrong with a file: an exception would lose its one line on the way."""
        try:
            return self.batch(*key)
        except DataError as error:
            return str(error)

    def batch(self, epoch: int, step: int) -> ImageBatch:
        """A batch of an epoch."""
        rows = self._order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        index = torch.from_numpy(rows[self.rank :: self.world_size])
        labels, weights = (
            None if values is None else values[index] for values in (self.images.labels, self.images.weights)
        )
        size = (len(index), self.prep.channels, *self.prep.size)
        if not len(index):
            return ImageBatch(torch.empty(size), labels, None, weights)
        if self.augment is None:
            pixels = self.prep.pixels(self.images, index)
            return ImageBatch(self.prep.normalise(pixels), labels, None, weights)
        with _seeded(self.seed, epoch, step, self.rank):
            images = self.augment.erased(self.prep.normalise(self._changed(index)))
            if not self.augment.mixes or labels is None:
                return ImageBatch(images, labels, None, weights)
            mixed = self.augment.mixed(images, labels, len(self.images.classes), weights)
            return ImageBatch(mixed[0], labels, *mixed[1:])

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self.images)
        if not self.shuffle:
            return np.arange(count)
        return np.random.default_rng([self.seed, epoch]).permutation(count)

    def _changed(self, index: Tensor) -> Tensor:
        """Augmented pictures, uint8 (B, C, H, W)."""
        assert self.augment is not None
        store, channels = self.images.store, self.prep.channels
        if isinstance(store, ArrayStore):
            return augment_batch(store.rows(self.images.rows[index], channels), self.augment, self.prep)
        change = self._per_image
        return torch.stack([change(self.images.pil(i, channels)) for i in index.tolist()])

    @cached_property
    def _per_image(self) -> Any:
        assert self.augment is not None
        return self.augment.per_image(self.prep)


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """The global random generators, which timm and torchvision draw from, set by a key and put back after."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  timm draws there
    words = np.random.SeedSequence(key).generate_state(4).tolist()
    random.seed(words[0])
    np.random.seed(words[1])  # noqa: NPY002
    torch.set_rng_state(torch.Generator().manual_seed(words[2] << 31 | words[3] >> 1).get_state())
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])


def _one_thread(worker: int) -> None:
    """Workers share the machine by processes, not by threads inside each."""
    torch.set_num_threads(1)
