"""An epoch of batches of small pictures, ours and a picture at a time, interleaved in this one process.

Settings: augmentation, count, side, batch, repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from meter import finish, settings
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from graphrec.pipelines.images import Augment, ImageLoader, Preprocess, shape_images

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
POLICY = "rand-m9-mstd0.5-inc1"
OURS: dict[str, Augment | None] = {
    "no augmentation": None,
    "pad, crop and flip": Augment(crop="pad"),
    "pad, crop, flip and jitter": Augment(crop="pad", jitter=0.4),
    "pad, crop, flip and RandAugment": Augment(crop="pad", policy=POLICY),
}


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
    ours = ImageLoader(images, prep, case["batch"], augment=OURS[case["augmentation"]], shuffle=True)
    pixels = images.store.pixels.permute(0, 2, 3, 1).contiguous().numpy()
    change = peer_transform(case["augmentation"], case["side"])
    peer = DataLoader(Pictures(pixels, images.labels.tolist(), change), case["batch"], shuffle=True)
    runs: dict[str, list[float]] = {"graphrec": [], "peer": []}
    for repeat in range(case["repeats"] + 1):
        for name, batches in (("graphrec", ours.epoch(repeat)), ("peer", peer)):
            start = time.process_time()
            assert drained(batches) == case["count"]
            if repeat:
                runs[name].append((time.process_time() - start) / ours.steps * 1e3)
    finish(["torch", "torchvision", "timm", "pillow", "graphrec"], runs=runs)


if __name__ == "__main__":
    main()
