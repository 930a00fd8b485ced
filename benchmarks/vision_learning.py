"""Does every backbone learn, and does what it is named for do the work? CIFAR-10, intact and broken.

python benchmarks/vision_learning.py --root DATA/cifar10 --runs vision_learning.jsonl

Each system is trained as a small variant for a small budget, and once more with its characteristic operator
broken: attention that gives every position its own value, a depthwise convolution that is the identity, a gate
that is one. A floor between the two says what a working system reaches and a broken one does not.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import common
import grid
import numpy as np
from torch import Tensor

TRAIN, TEST = 500, 500
"""Images of each class: the first of the archives' orders."""
TRAINING: dict[str, Any] = {
    "image_size": 32,
    "epochs": 6,
    "batch_size": 50,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "augment": {"crop": "none", "hflip": 0.5},
    "drop_path": 0.0,
    "validation": 0.0,
    "accelerator": "cpu",
}


def own_value(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    """Attention in which every position sees itself alone; nothing, where keys are other positions."""
    if q.shape[-2] == v.shape[-2]:
        return v
    return v.new_zeros(*q.shape[:-1], v.shape[-1])


def own_window(value: Tensor, *_: Any, **__: Any) -> Tensor:
    """Outlook attention without an outlook."""
    return value


def as_it_is(module: Any, x: Tensor) -> Tensor:
    """A gate that is one, or a convolution that mixes nothing."""
    return x


@dataclass(frozen=True)
class System:
    """A small variant of a system, and what breaks it.

    Attributes:
        variant: Any of its variants; the options say the rest.
        options: Keyword arguments of its class.
        broken: Name in the package -> what stands in its place.
        lost: The breakage in words.
        floor: Test accuracy that it reaches and the broken one does not.
    """

    variant: str
    options: Mapping[str, Any]
    broken: Mapping[str, Callable[..., Any]]
    lost: str = "attention gives each position its own value"
    floor: float | None = None


_GRID = "layers.attention.attention"
SYSTEMS: dict[str, System] = {
    "swin": System(
        "swin_test",
        {"patch_size": 2, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
        {_GRID: own_value},
    ),
}


@cache
def load(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels uint8 (N, 32, 32, 3) and names of classes of the training and test images."""
    from graphrec.pipelines.images import open_images

    images = open_images(root)
    labels = images.labels.numpy()
    found = {}
    for part, most in (("train", TRAIN), ("test", TEST)):
        rows = getattr(images.split, part).numpy()
        rows = np.concatenate([rows[labels[rows] == c][:most] for c in range(len(images.classes))])
        pixels = np.stack([np.asarray(images.pil(i)) for i in rows])
        found[part] = (pixels, np.asarray(images.classes)[labels[rows]])
    return found


@contextmanager
def breaking(broken: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """The package with some of its functions replaced."""
    with ExitStack() as stack:
        for name, replacement in broken.items():
            stack.enter_context(mock.patch(f"graphrec.vision.{name}", replacement))
        yield


def train(settings: grid.Settings, root: Path, device: str) -> grid.Figures:
    """Train one system, intact or broken, and measure it on the test images."""
    from graphrec.vision import ImageClassifier

    data, system = load(root), SYSTEMS[settings["system"]]
    model = ImageClassifier(
        system.variant,
        model_options=dict(system.options),
        random_state=settings["seed"],
        **{**TRAINING, "accelerator": device},
    )
    with breaking(system.broken if settings["broken"] else {}):
        model.fit(*data["train"])
        measured = model.evaluate(*data["test"])
    return {
        "accuracy": round(measured["accuracy"], 4),
        "logloss": round(measured["logloss"], 4),
        "loss": round(model.history_[-1]["train_loss"], 4),
        "parameters": sum(one.numel() for one in model.module_.parameters()),
    }


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    grid.add_options(options)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    given = options.parse_args()
    wanted = [
        {"system": name, "broken": broken, "seed": seed}
        for seed in range(given.seeds)
        for name in given.systems
        for broken in (False, True)
    ]
    lines = grid.run(train, wanted, given)
