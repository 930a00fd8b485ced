"""MaxViT against timm's implementation of the TensorFlow models."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import timm
import torch
from timm.models.maxxvit import MaxxVit, checkpoint_filter_fn, model_cfgs
from torch import nn
from vision_tools import assert_equals_timm, assert_official_keys, randomized

from graphrec import vision

SMALL = {"embed_dim": (32, 64), "depths": (1, 2), "stem_width": 8}


def without_stem(peer: nn.Module, stages: int) -> nn.Module:
    """timm's model with the stem left out of its feature maps, as it is in ours."""
    peer.forward_intermediates = partial(peer.forward_intermediates, indices=list(range(1, stages + 1)))
    return peer


def test_equals_timm() -> None:
    cfg = replace(model_cfgs["maxvit_tiny_tf"], **SMALL, block_type=("M", "M"), head_hidden_size=64)
    for size in [(64, 64), (96, 64)]:
        model = vision.create_model("maxvit_test", img_size=size, num_classes=11, head_dim=32, **SMALL)
        peer = without_stem(MaxxVit(cfg, img_size=size, num_classes=11), 2)
        assert_equals_timm(model, peer, [size], checkpoint_filter_fn)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    name = "maxvit_tiny_tf_224"
    peer = without_stem(timm.create_model(name), 4)
    assert_equals_timm(vision.create_model(name), peer, [(224, 224)], checkpoint_filter_fn)


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("maxvit_test"))


def test_tables_of_another_size() -> None:
    model = randomized(vision.create_model("maxvit_test"))
    other = vision.create_model("maxvit_test", img_size=(96, 128))
    vision.load_weights(other, vision.official_state(model))
    name = "stages.0.blocks.0.attn_grid.attn.rel_pos.relative_position_bias_table"
    old, new = model.state_dict()[name], other.state_dict()[name]
    assert new.shape == (2, 5, 7)
    wanted = torch.nn.functional.interpolate(old[None], size=(5, 7), mode="bilinear")[0]
    assert torch.equal(new, wanted)
