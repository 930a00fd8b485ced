"""SHViT against timm's implementation, and against tensors that the official code made."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn
from vision_tools import assert_equals_recording, assert_equals_timm, assert_official_keys

from graphrec import vision

SMALL = {"embed_dim": (16, 24, 32), "partial_dim": (0, 9, 12), "depths": (1, 2, 1), "num_classes": 11}


def to_timm(state: dict[str, Tensor], peer: nn.Module) -> dict[str, Tensor]:
    """timm's names, in which the parts between stages are one flat list."""
    place = {"0.0": "0", "0.1": "1", "1": "2", "2.0": "3", "2.1": "4"}
    found = {}
    for name, value in vision.create_model("shvit_test", **SMALL).keys.to_ours(state).items():
        for old, new in place.items():
            name = name.replace(f".downsample.{old}.", f".downsample_.{new}.")
        found[name.replace("downsample_", "downsample").replace("head.fc", "head.l")] = value
    return found


def test_equals_timm() -> None:
    model = vision.create_model("shvit_test", **SMALL)
    peer = timm.models.shvit.SHViT(
        num_classes=11, embed_dim=(16, 24, 32), partial_dim=(4, 9, 12), depth=(1, 2, 1), types=("i", "s", "s")
    )
    assert_equals_timm(model, peer, [(64, 64), (80, 112)], to_timm)


def test_equals_official() -> None:
    assert_equals_recording(vision.create_model("shvit_test", **SMALL), "shvit")


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("shvit_test"))


def test_one_convolution_where_the_official_code_fuses_one() -> None:
    fused = vision.fuse(vision.create_model("shvit_test"))
    assert not any(isinstance(one, nn.BatchNorm2d | nn.BatchNorm1d) for one in fused.modules())
    assert isinstance(fused.stages[0].blocks[0].conv, nn.Conv2d)
    assert torch.is_tensor(fused.head.fc.bias)
