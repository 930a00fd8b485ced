"""ECA-Net against tensors that the official code made."""

from __future__ import annotations

import pytest
import torch
from vision_tools import assert_equals_recording, assert_official_keys

from graphrec import vision

RECORDED = {"depths": (1, 2, 1, 1), "kernels": (3, 5, 5, 7), "width": 64, "num_classes": 11}


@pytest.mark.parametrize("name", ["ecanet", "ecanet_basic"])
def test_resnet_equals_official(name: str) -> None:
    """Gradients in float64: rounding in float32 puts a few inputs of ReLU on the other side of zero."""
    assert_equals_recording(vision.create_model(f"{name}_test", **RECORDED), name, torch.float64)


def test_mobilenet_equals_official() -> None:
    model = vision.create_model("ecanet_mobilenetv2_test", last=1280, num_classes=11)
    assert_equals_recording(model, "ecanet_mobilenetv2", torch.float64)


@pytest.mark.parametrize("name", ["ecanet_test", "ecanet_basic_test", "ecanet_mobilenetv2_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))
