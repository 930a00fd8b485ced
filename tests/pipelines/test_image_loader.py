"""Batches: order and augmentation by seed, epoch and step alone; ranks, workers, resuming; the trainer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from image_tools import arrays, class_folders, picture, write

from graphrec.errors import ConfigError, DataError, RunError
from graphrec.pipelines.images import Augment, ImageLoader, ImageSet, Preprocess, open_images
from graphrec.training import BatchSource

PREP = Preprocess(size=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=1.0)
STRONG = Augment(
    policy="rand-m9-mstd0.5-inc1", erase=0.5, mixup=0.8, cutmix=1.0, scale=(0.3, 1.0), hflip=0.5, vflip=0.2
)


@pytest.fixture(params=["files", "array"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSet:
    if request.param == "files":
        return open_images(class_folders(tmp_path, each=5))
    return open_images(*arrays(15))


def same(first: list, second: list) -> bool:
    """Whether two lists of batches are equal to the last bit."""
    pairs = zip(first, second, strict=True)
    return all(
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and (a.targets is None) == (b.targets is None)
        and (a.targets is None or torch.equal(a.targets, b.targets))
        for a, b in pairs
    )


def test_batches_without_chance(images: ImageSet) -> None:
    loader = ImageLoader(images, PREP, 4)
    assert isinstance(loader, BatchSource)
    batches = list(loader)
    assert [len(b.images) for b in batches] == [4, 4, 4, 3]
    assert loader.steps == 4
    assert images.labels is not None
    assert torch.equal(torch.cat([b.labels for b in batches]), images.labels)
    first = batches[0].images[1]
    assert first.dtype == torch.float32
    pixels = (first * torch.tensor(PREP.std).view(3, 1, 1) + torch.tensor(PREP.mean).view(3, 1, 1)) * 255
    expected = images.pil(1).resize((8, 8), 3) if images.pil(1).size != (8, 8) else images.pil(1)
    if images.fixed:
        np.testing.assert_allclose(pixels.permute(1, 2, 0), np.asarray(expected), atol=1e-3)
    assert batches[0].targets is None


def test_order_and_augmentation_depend_on_seed_epoch_and_step_alone(images: ImageSet) -> None:
    def load(epoch: int, start: int = 0, **options: object) -> list:
        loader = ImageLoader(images, PREP, 4, augment=STRONG, shuffle=True, **{"seed": 3, **options})  # type: ignore[arg-type]
        return list(loader.epoch(epoch, start))

    whole = load(1)
    torch.rand(7)
    np.random.rand(3)  # noqa: NPY002
    assert same(load(1), whole)
    assert same(load(1, 2), whole[2:])
    assert not same(load(2), whole)
    assert not same(load(1, seed=4), whole)
    assert len({tuple(b.labels.tolist()) for b in whole}) > 1
    targets = torch.cat([b.targets for b in whole])
    assert targets.shape == (15, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(15))


def test_the_callers_random_generators_are_left_alone(images: ImageSet) -> None:
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
    batches = ImageLoader(images, PREP, 4, augment=STRONG, shuffle=True).epoch(0)
    next(batches)
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_workers_change_nothing(images: ImageSet) -> None:
    options = {"augment": STRONG, "shuffle": True, "seed": 5}
    alone = ImageLoader(images, PREP, 4, **options)  # type: ignore[arg-type]
    several = ImageLoader(images, PREP, 4, workers=2, **options)  # type: ignore[arg-type]
    assert same(list(several.epoch(0)), list(alone.epoch(0)))
    assert same(list(several.epoch(1, 2)), list(alone.epoch(1, 2)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_later_is_named(tmp_path: Path, workers: int) -> None:
    images = open_images(class_folders(tmp_path))
    write(tmp_path / "green" / "2.jpg", b"")
    loader = ImageLoader(images, PREP, 4, workers=workers)
    with pytest.raises(DataError, match=r"^\S+2\.jpg: is empty \(0 bytes\)$"):
        list(loader)
    (tmp_path / "green" / "2.jpg").unlink()
    with pytest.raises(DataError, match=r"^\S+2\.jpg: no such file$"):
        list(loader)


def test_a_worker_that_is_killed_is_told(images: ImageSet) -> None:
    """As torch tells it; a real one it tells by a signal handler, in the midst of whatever runs then."""
    loader = ImageLoader(images, PREP, 4, workers=1)
    first, closed = next(iter(loader)), []

    class Lost:
        """A `DataLoader` whose worker ends after a batch."""

        def __iter__(self) -> Iterator[object]:
            yield first
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

        @property
        def _iterator(self) -> Lost:
            return self

        def _shutdown_workers(self) -> None:
            closed.append(True)

    vars(loader)["_pool"] = Lost()
    batches = iter(loader)
    assert next(batches) is first
    said = r"^workers: a process that reads images was ended from outside \(DataLoader worker .*take fewer"
    with pytest.raises(RunError, match=said):
        list(batches)
    assert closed
    assert same(list(loader), list(ImageLoader(images, PREP, 4)))


def test_ranks_share_the_batches(images: ImageSet) -> None:
    def labels(rank: int, world: int, **options: object) -> list[torch.Tensor]:
        loader = ImageLoader(images, PREP, 6, rank=rank, world_size=world, **options)  # type: ignore[arg-type]
        return [batch.labels for batch in loader.epoch(0)]

    whole, parts = labels(0, 1, shuffle=True), [labels(rank, 2, shuffle=True) for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    for step, batch in enumerate(whole):
        assert torch.equal(parts[0][step], batch[::2])
        assert torch.equal(parts[1][step], batch[1::2])
    last = [labels(rank, 4)[-1] for rank in range(4)]
    assert [len(part) for part in last] == [1, 1, 1, 0]
    # a training step of a rank without pictures would leave the others waiting
    assert len(labels(0, 4, shuffle=True)) == 2
    assert len(labels(0, 1, drop_last=True)) == 2


def test_parts_of_a_split(images: ImageSet) -> None:
    loader = ImageLoader(images, PREP, 4, indices=[14, 0, 7])
    assert images.labels is not None
    assert next(iter(loader)).labels.tolist() == images.labels[[14, 0, 7]].tolist()


def test_the_fingerprint_tells_data_and_augmentation_apart() -> None:
    images = open_images(*arrays())
    prints = {
        ImageLoader(images, PREP, 4).fingerprint,
        ImageLoader(images, PREP, 4, augment=STRONG).fingerprint,
        ImageLoader(images, PREP.replace(crop_pct=0.9), 4).fingerprint,
        ImageLoader(images.subset(range(6)), PREP, 4).fingerprint,
    }
    assert len(prints) == 4


def test_without_labels() -> None:
    images = open_images(arrays()[0], labelled=False)
    assert next(iter(ImageLoader(images, PREP, 4))).labels is None
    assert next(iter(ImageLoader(images, PREP, 4, augment=Augment()))).labels is None
    with pytest.raises(DataError, match="mixup and CutMix need labels"):
        ImageLoader(images, PREP, 4, augment=STRONG)


def test_arguments_out_of_range() -> None:
    images = open_images(*arrays())
    for options, words in (
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 1, "world_size": 2}, "at least the 2 processes"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank=2 must be from 0 to"),
        ({"batch_size": 4, "workers": -1}, "workers=-1: must be a whole number from 0 up"),
    ):
        with pytest.raises(ConfigError, match=words):
            ImageLoader(images, PREP, **options)
    with pytest.raises(DataError, match="2 images are too few for 3 processes"):
        ImageLoader(images, PREP, 6, indices=[0, 1], shuffle=True, world_size=3)


def test_sizes_may_differ(tmp_path: Path) -> None:
    for i, size in enumerate([(5, 40), (40, 5), (1, 1), (300, 200)]):
        write(tmp_path / "red" / f"{i}.png", picture("red", size))
    images = open_images(tmp_path)
    for augment in (None, Augment(), Augment(crop="pad"), Augment(crop="none", jitter=0.4)):
        [batch] = ImageLoader(images, PREP, 4, augment=augment)
        assert batch.images.shape == (4, 3, 8, 8)
        assert torch.isfinite(batch.images).all()
