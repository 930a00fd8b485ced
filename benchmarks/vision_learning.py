"""Does every backbone learn, and does what it is named for do the work? CIFAR-10, intact and broken.

python benchmarks/vision_learning.py --root DATA/cifar10 --runs vision_learning.jsonl

Each system is trained as a small variant for a small budget, and once more with its characteristic operator
broken: attention that gives every position its own value, a depthwise convolution that is the identity, a
gate that is one. A floor between the two says what a working system reaches and a broken one does not.
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

TRAIN, TEST = 200, 200
"""Images of each class: the first of the archives' orders."""
TRAINING: dict[str, Any] = {
    "image_size": 32,
    "epochs": 5,
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


def nothing_joint(q: Tensor, sources: Any, **_: Any) -> Tensor:
    """Joint attention that finds nothing."""
    v = sources[0].v
    return v.new_zeros(*q.shape[:-1], v.shape[-1])


def own_window(value: Tensor, *_: Any, **__: Any) -> Tensor:
    """Outlook attention without an outlook."""
    return value


def without_depthwise(block: Any, x: Tensor) -> Tensor:
    """A block of ConvNeXt that is its perceptron alone."""
    return x + block.mlp(block.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


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


_GRID = {"layers.attention.attention": own_value}
_TWO: dict[str, Any] = {"embed_dims": (32, 64), "depths": (2, 2), "num_heads": (1, 2)}
SYSTEMS: dict[str, System] = {
    "biformer": System(
        "biformer_test",
        {"embed_dims": (32, 64), "depths": (1, 1), "head_dim": 16, "windows": 4, "topks": (2, 4)},
        {**_GRID, "backbones.biformer.attention": own_value},
    ),
    "convit": System(
        "convit_test",
        {"patch_size": 4, "embed_dim": 48, "num_heads": 4, "depth": 2, "local": 2},
        {"backbones.convit.GatedAttention.forward": as_it_is},
        "gated attention is the identity; that of the class token is left",
    ),
    "convnext": System(
        "convnext_test",
        {"patch_size": 4, "dims": (32, 64), "depths": (2, 2), "layer_scale": None},
        {"backbones.convnext.ConvNeXtBlock.forward": without_depthwise},
        "the depthwise convolution is the identity",
    ),
    "crossvit": System(
        "crossvit_test",
        {"img_scales": (1.0, 1.0), "patch_sizes": (4, 8), "embed_dims": (32, 64), "depths": ((1, 2), (1, 2)),
         "num_heads": (2, 4)},
        {**_GRID, "layers.tokens.attention": own_value},
    ),
    "cswin": System(
        "cswin_test",
        {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "split_sizes": (1, 2)},
        {"backbones.cswin.attention": own_value},
    ),
    "davit": System(
        "davit_test",
        {"embed_dims": (32, 64), "depths": (1, 1), "num_heads": (2, 4), "window_size": 4},
        {**_GRID, "backbones.davit.attention": own_value},
    ),
    "dinat": System(
        "dinat_s_test",
        {"convolutional": False, "patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4),
         "kernel_size": 3, "dilations": (2, 1)},
        _GRID,
    ),
    "ecanet": System(
        "ecanet_basic_test",
        {"depths": (1, 1), "kernels": (3, 3), "width": 32},
        {"backbones.ecanet.EcaModule.forward": as_it_is},
        "the gate is one",
    ),
    "efficientvit_msra": System(
        "efficientvit_msra_test",
        {"embed_dim": (32, 48), "depths": (1, 1), "num_heads": (2, 2), "key_dim": 8, "window_size": 4},
        {"backbones.efficientvit_msra.attention": own_value},
    ),
    "maxvit": System(
        "maxvit_test",
        {"stem_width": 16, "embed_dim": (32,), "depths": (1,), "head_dim": 16, "partition": 8},
        _GRID,
    ),
    "pvt": System(
        "pvt_test",
        {**_TWO, "mlp_ratios": (4, 4), "sr_ratios": (4, 1)},
        {"backbones.pvt.attention": own_value},
    ),
    "pvt_v2": System(
        "pvt_v2_test",
        {**_TWO, "mlp_ratios": (4, 4), "sr_ratios": (4, 1)},
        {"layers.reduced_attention.attention": own_value},
    ),
    "shvit": System(
        "shvit_test",
        {"embed_dim": (48, 64), "partial_dim": (16, 24), "depths": (2, 2)},
        {"backbones.shvit.attention": own_value},
    ),
    "swin": System(
        "swin_test",
        {"patch_size": 4, "embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
        _GRID,
    ),
    "tnt": System(
        "tnt_test",
        {"patch_size": 8, "outer_dim": 64, "inner_dim": 16, "depth": 3, "num_heads": (2, 4)},
        {"backbones.tnt.attention": own_value},
    ),
    "transnext": System(
        "transnext_test",
        {"pretrain_size": 32, "embed_dims": (32, 64), "depths": (1, 1), "num_heads": (2, 4),
         "poolings": (2, 1), "mlp_ratios": (3.0, 3.0)},
        {"layers.aggregated_attention.attention": own_value,
         "layers.aggregated_attention.joint_attention": nothing_joint},
    ),
    "volo": System(
        "volo_test",
        {"layers": (3, 1), "embed_dims": (32, 64), "num_heads": (2, 4), "stem_dim": 16},
        {"backbones.volo.outlook": own_window},
        "outlook attention gives each position its own value",
    ),
}  # fmt: skip


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


def accuracies(lines: list[dict[str, Any]], name: str, broken: bool) -> list[float]:
    """Test accuracies of a system over the seeds."""
    chosen = {"system": name, "broken": broken}
    return [
        line["figures"]["accuracy"]
        for line in lines
        if all(line["settings"][key] == value for key, value in chosen.items())
    ]


def verdict(system: System, intact: list[float], broken: list[float]) -> str:
    """Whether every working run reaches the floor and no broken one does."""
    if system.floor is None:
        return "no floor"
    return "yes" if min(intact) >= system.floor > max(broken) else "NO"


def row(name: str, lines: list[dict[str, Any]]) -> list[str]:
    """A system's line of the table."""
    system, (intact, broken) = SYSTEMS[name], (accuracies(lines, name, b) for b in (False, True))
    found = next(line for line in lines if line["settings"]["system"] == name)
    gap = 100 * (statistics.mean(intact) - statistics.mean(broken))
    return [
        name,
        f"{found['figures']['parameters'] / 1e3:.0f}k",
        grid.percent(intact),
        grid.percent(broken),
        f"{gap:+.1f}",
        "–" if system.floor is None else f"{100 * system.floor:.0f}",
        verdict(system, intact, broken),
        system.lost,
    ]


def main() -> None:
    """Run and record."""
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
    done = [n for n in given.systems if accuracies(lines, n, False) and accuracies(lines, n, True)]
    if not done:
        return
    header = ["system", "size", "intact", "broken", "gap", "floor", "told apart", "what is broken"]
    text = common.markdown_table(header, (row(name, lines) for name in done)) + (
        f"\n\nTest accuracy in per cent, mean ± deviation (seeds). CIFAR-10: {TRAIN} training and {TEST} "
        f"test images of each class, 32 pixels, mirrored at random; {TRAINING['epochs']} epochs of AdamW in "
        f"batches of {TRAINING['batch_size']}, rate {TRAINING['learning_rate']} falling as a cosine. "
        "Guessing gives 10. "
        "Every working run reaches the floor and no broken one does, where a floor is stated."
    )
    grid.record("vision_learning", "Backbones that learn, and that cannot", text, lines)


if __name__ == "__main__":
    main()
