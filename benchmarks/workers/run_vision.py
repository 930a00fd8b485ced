"""A backbone and its peer on a CPU with the same weights, interleaved in this one process.

Settings: model (a name of graphrec.vision), peer (see ``PEERS``), dtype, repeats, batches, size.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from meter import finish, settings
from timm.layers import EcaModule
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from graphrec import vision

Step = Callable[[], None]


def of_timm(module: str, name: str) -> Callable[[vision.Backbone], nn.Module]:
    """Makes timm's model with our weights, by its own converter of official checkpoints."""

    def make(model: vision.Backbone) -> nn.Module:
        peer = timm.create_model(name, drop_path_rate=0.0)
        convert = importlib.import_module(f"timm.models.{module}").checkpoint_filter_fn
        peer.load_state_dict(convert(vision.official_state(model), peer), strict=False)
        return peer

    return make


class EcaResNet50(ResNet):
    """timm's ResNet-50 with its gate of 5 taps: the official stages' 3, 5, 5, 7 cost the same."""

    def __init__(self, model: vision.Backbone) -> None:
        gate = partial(_gate, taps=5)
        super().__init__(Bottleneck, (3, 4, 6, 3), block_args={"attn_layer": gate})


def _gate(channels: int, taps: int, **_: Any) -> nn.Module:
    return EcaModule(None, kernel_size=taps)


PEERS: dict[str, tuple[Callable[[vision.Backbone], nn.Module], bool]] = {
    "swin_tiny_patch4_window7_224": (of_timm("swin_transformer", "swin_tiny_patch4_window7_224"), True),
    "convnext_tiny": (of_timm("convnext", "convnext_tiny"), True),
    "davit_tiny": (of_timm("davit", "davit_tiny"), True),
    "maxvit_tiny_tf_224": (of_timm("maxxvit", "maxvit_tiny_tf_224"), True),
    "ecanet50": (EcaResNet50, False),
}
"""Our name -> what makes the peer, and whether it computes the same numbers."""


def forward(model: nn.Module, x: Tensor, low: bool) -> Step:
    """One evaluation."""

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            model(x)

    return step


def training(model: nn.Module, x: Tensor, low: bool) -> Step:
    """Forward, loss, backward; gradients are dropped, no optimiser runs."""
    target = torch.arange(len(x)) % 1000

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = nn.functional.cross_entropy(model(x).float(), target)
        loss.backward()
        for one in model.parameters():
            one.grad = None

    return step


def compare(ours: nn.Module, theirs: nn.Module, x: Tensor) -> float:
    """Relative difference of the logits."""
    with torch.inference_mode():
        mine, other = ours(x), theirs(x)
    return float((mine - other).norm() / other.norm())


def timed(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds of each, in turn, after a run to warm up."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat:
                found[name].append((time.process_time() - start) * 1e3)
    return found


def main() -> None:
    """Build both, compare, time."""
    case = settings()
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    rates = {} if case["model"] == "ecanet50" else {"drop_path_rate": 0.0}
    ours = vision.create_model(case["model"], **rates)
    make, same = PEERS[case["model"]]
    theirs = make(ours)
    low = case["dtype"] == "bfloat16"
    x = torch.randn(max(case["batches"]), 3, case["size"], case["size"])
    if same:
        difference = compare(ours.eval(), theirs.eval(), x[:1])
        assert difference < 1e-4, f"the logits differ by {difference}"
    runs = {}
    for batch in case["batches"]:
        both = {"graphrec": ours.eval(), "peer": theirs.eval()}
        steps = {name: forward(model, x[:batch], low) for name, model in both.items()}
        runs[f"forward, batch {batch}"] = timed(steps, case["repeats"])
        both = {"graphrec": ours.train(), "peer": theirs.train()}
        steps = {name: training(model, x[:batch], low) for name, model in both.items()}
        runs[f"training step, batch {batch}"] = timed(steps, case["repeats"])
    finish(["torch", "timm", "graphrec"], runs=runs)


if __name__ == "__main__":
    main()
