"""PVT against tensors that the official code made."""

from __future__ import annotations

import pytest
import torch
from vision_tools import assert_equals_recording, assert_official_keys, image, randomized

from graphrec import vision
from graphrec.errors import ConfigError

RECORDED = {
    "embed_dims": (16, 24, 32, 40),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 2, 4),
    "mlp_ratios": (2, 2, 2, 2),
    "sr_ratios": (8, 4, 2, 1),
    "num_classes": 11,
}


def test_equals_official() -> None:
    assert_equals_recording(vision.create_model("pvt_test", img_size=64, **RECORDED), "pvt")


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("pvt_test"))


def test_positions_of_another_size_are_what_forward_would_interpolate() -> None:
    model = randomized(vision.create_model("pvt_test"))
    larger = vision.create_model("pvt_test", img_size=64).eval()
    vision.load_weights(larger, vision.official_state(model))
    assert larger.stages[1].pos_embed.shape == (1, 65, 24)
    x = image(larger)
    torch.testing.assert_close(larger(x), model(x))


def test_patches_can_be_averaged() -> None:
    model = randomized(vision.create_model("pvt_test", num_classes=0))
    tokens = model.forward_features(image(model))
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(image(model)), tokens[:, 1:].mean(1))
    with pytest.raises(ConfigError, match="global_pool: 'max'"):
        model.reset_classifier(3, "max")
