"""An epoch of batches of small pictures, ours and a picture at a time, interleaved in this one process.

Settings: augmentation, count, side, batch, repeats.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from meter import finish, settings
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from graphrec.pipelines.images import (
    Augment,
    ImageLoader,
    Preprocess,
    decode_images,
    open_images,
    shape_images,
)

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
POLICY = "rand-m9-mstd0.5-inc1"
OURS: dict[str, Augment | None] = {
    "no augmentation": None,
    "pad, crop and flip": Augment(crop="pad"),
    "pad, crop, flip and jitter": Augment(crop="pad", jitter=0.4),
    "pad, crop, flip and RandAugment": Augment(crop="pad", policy=POLICY),
}
FILES = "JPEG files, "


class Pictures(Dataset[Any]):
    """One picture at a time, as torchvision's CIFAR10 gives them."""

    def __init__(self, pixels: Any, labels: list[int], change: Callable[[Image.Image], Tensor]) -> None:
        self.pixels, self.labels, self.change = pixels, labels, change

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.change(Image.fromarray(self.pixels[index])), self.labels[index]


def peer_transform(name: str, side: int) -> Callable[[Image.Image], Tensor]:
    """The same augmentation of one PIL image."""
    steps: list[Any] = []
    if name != "no augmentation":
        steps += [transforms.RandomCrop(side, padding=4), transforms.RandomHorizontalFlip()]
    if name.endswith("jitter"):
        steps.append(transforms.ColorJitter(0.4, 0.4, 0.4))
    if name.endswith("RandAugment"):
        # timm's own handling of full strength asks Pillow 13 for no bits at all, which it refuses.
        hparams = {"translate_const": int(side * 0.45), "img_mean": (125, 122, 115), "magnitude_max": 9}
        steps.append(rand_augment_transform(POLICY, hparams))
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def write_files(pixels: Any, labels: list[int], folder: Path) -> None:
    """A JPEG file per picture, in a folder per class."""
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / str(label) / f"{number}.jpg", quality=90)


def drained(batches: Iterable[Any]) -> int:
    """How many pictures came."""
    return sum(len(batch[0]) for batch in batches)


def main() -> None:
    """Time an epoch of each in turn, after one to warm up."""
    case = settings()
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    images = shape_images(case["count"], case["side"])
    prep = Preprocess((case["side"],) * 2, MEAN, STD, crop_pct=1.0)
    pixels, labels = images.store.pixels.permute(0, 2, 3, 1).contiguous().numpy(), images.labels.tolist()
    asked = case["augmentation"]
    files, first = asked.startswith(FILES), asked.endswith("first epoch")
    augmentation = (
        asked.removeprefix(FILES).removesuffix(", first epoch").removesuffix(", each further epoch")
    )
    change = peer_transform(augmentation, case["side"])
    with tempfile.TemporaryDirectory() as folder:
        if files:
            write_files(pixels, labels, Path(folder))
            images = open_images(folder)
        pictures = ImageFolder(folder, change) if files else Pictures(pixels, labels, change)
        peer = DataLoader(pictures, case["batch"], shuffle=True)
        kept = decode_images(images, prep)

        def ours(epoch: int) -> Iterable[Any]:
            shown = decode_images(images, prep) if first else kept
            loader = ImageLoader(shown, prep, case["batch"], augment=OURS[augmentation], shuffle=True)
            yield from loader.epoch(epoch)

        runs: dict[str, list[float]] = {"graphrec": [], "peer": []}
        for repeat in range(case["repeats"] + 1):
            for name, batches in (("graphrec", ours(repeat)), ("peer", peer)):
                start = time.process_time()
                assert drained(batches) == case["count"]
                if repeat:
                    runs[name].append((time.process_time() - start) / len(peer) * 1e3)
    finish(["torch", "torchvision", "timm", "pillow", "graphrec"], runs=runs)


if __name__ == "__main__":
    main()
