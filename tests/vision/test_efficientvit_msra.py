"""EfficientViT of Microsoft against timm's implementation."""

from __future__ import annotations

from itertools import product

import torch
from timm.models.efficientvit_msra import EfficientVitMsra
from torch import Tensor, nn
from vision_tools import assert_equals_timm, assert_official_keys, randomized

from graphrec import vision
from graphrec.vision.backbones.efficientvit_msra import CascadedGroupAttention

SMALL = {"embed_dim": (16, 32), "depths": (1, 2), "num_heads": (2, 2), "key_dim": 4, "window_size": 3}
PLACES = {"0.0": "res1.0", "0.1": "res1.1", "1": "patchmerge", "2.0": "res2.0", "2.1": "res2.1"}


def to_timm(state: dict[str, Tensor], peer: nn.Module) -> dict[str, Tensor]:
    """timm's names for an official checkpoint."""
    found = {}
    for name, value in (
        vision.create_model("efficientvit_msra_test", num_classes=11).keys.to_ours(state).items()
    ):
        for old, new in PLACES.items():
            if f".downsample.{old}." in name:
                name = name.replace(f".downsample.{old}.", f".downsample.{new}.")
                break
        if name.startswith("patch_embed."):
            _, place, rest = name.split(".", 2)
            name = f"patch_embed.conv{int(place) // 2 + 1}.{rest}"
        found[name.replace(".c.", ".conv.").replace("head.fc", "head.linear")] = value
    return found


def test_equals_timm() -> None:
    for size in [(64, 64), (80, 112)]:
        model = vision.create_model("efficientvit_msra_test", img_size=size, num_classes=11)
        peer = EfficientVitMsra(
            img_size=size,
            num_classes=11,
            embed_dim=(16, 32),
            depth=(1, 2),
            num_heads=(2, 2),
            key_dim=(4, 4),
            window_size=(3, 3),
            down_ops=(("", 1), ("subsample", 2)),
        )
        assert_equals_timm(model, peer, [size], to_timm)


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("efficientvit_msra_test"))


def test_biases_by_absolute_distance() -> None:
    layer = CascadedGroupAttention(8, 2, 4, 3, (3, 3))
    nn.init.normal_(layer.attention_biases)
    bias = layer.bias().view(2, 3, 3, 3, 3)  # of a query's row and column and a key's
    for q, k in product(product(range(3), repeat=2), repeat=2):
        wanted = layer.attention_biases[:, 3 * abs(q[0] - k[0]) + abs(q[1] - k[1])]
        assert torch.equal(bias[:, *q, *k], wanted)


def test_matrices_and_biases_of_another_size_load() -> None:
    model = randomized(vision.create_model("efficientvit_msra_test"))
    state = vision.official_state(model)
    name = "blocks1.0.mixer.m.attn.qkvs.0.c.weight"
    state[name] = state[name].flatten(1)
    twin = vision.create_model("efficientvit_msra_test", window_size=2)
    vision.load_weights(twin, state)
    assert torch.equal(twin.stages[0].blocks[0].mixer.m.attn.qkvs[0].c.weight.flatten(1), state[name])
    assert twin.stages[0].blocks[0].mixer.m.attn.attention_biases.shape == (2, 4)
