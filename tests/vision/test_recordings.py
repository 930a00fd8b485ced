"""That comparisons with recordings of official code can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from vision_tools import RECORDED, assert_equals_recording

from graphrec import vision


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_recordings_hold(path: Path) -> None:
    with safe_open(path, "pt") as file:
        about, keys = file.metadata(), set(file.keys())
        assert {"repository", "commit", "options", "seed", "parameters", "gradients"} <= set(about)
        for number in [key.removeprefix("image.") for key in keys if key.startswith("image.")]:
            assert {f"logits.{number}", f"image_gradient.{number}"} <= keys
            summary = file.get_tensor(f"gradient.{number}")
            assert len(summary) == len(about["parameters"].split())
            assert (summary[:, 0] > 1e-4).float().mean() > 0.4


@pytest.mark.parametrize("part", ["stages.1.blocks.0.attns.0.get_v.weight", "stages.2.blocks.0.qkv.bias"])
def test_gradients_slightly_wrong_are_noticed(part: str) -> None:
    options = {"img_size": 32, "depths": (1, 1, 1, 1), "split_sizes": (2, 4, 1, 1)}
    model = vision.create_model("cswin_test", num_classes=11, **options)
    weight = model.get_parameter(part)
    weight.register_hook(lambda grad: grad + 1e-3 * grad.norm() * torch.eye(1, grad.numel()).view_as(grad))
    with pytest.raises(AssertionError, match="gradient of"):
        assert_equals_recording(model, "cswin_whole")
