"""CSWin Transformer against recordings of the official code, and its stripes against a slow computation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from vision_tools import assert_equals_recording, assert_official_keys, randomized, relative

from graphrec import vision


def test_equals_official() -> None:
    assert_equals_recording(vision.create_model("cswin_test", num_classes=11), "cswin")


def test_stage_as_wide_as_its_stripes_equals_official() -> None:
    """There the official code has one attention of all heads, and so one convolution of all channels."""
    options = {"img_size": 32, "depths": (1, 1, 1, 1), "split_sizes": (2, 4, 1, 1)}
    model = vision.create_model("cswin_test", num_classes=11, **options)
    assert [len(stage.blocks[0].attns) for stage in model.stages] == [2, 1, 2, 1]
    assert_equals_recording(model, "cswin_whole")


@pytest.mark.parametrize("options", [{}, {"img_size": 32, "split_sizes": (2, 4, 1, 1)}])
def test_official_keys(options: dict[str, object]) -> None:
    assert_official_keys(vision.create_model("cswin_test", **options))


def test_maps_that_stripes_do_not_divide() -> None:
    """Stripe by stripe, on a map padded with zeros on both sides as in the official segmentation code."""
    block = randomized(vision.create_model("cswin_test", split_sizes=(4, 2, 2, 2))).stages[0].blocks[0]
    x = torch.randn(1, 6, 7, 8)
    qkv = block.qkv(x)[0].unflatten(-1, (3, 8))  # [6, 7, 3, 8]
    vertical = stripes_of_width_4(block.attns[0], qkv[..., :4], (0, 1))
    horizontal = stripes_of_width_4(block.attns[1], qkv[..., 4:].transpose(0, 1), (1, 1), True).transpose(
        0, 1
    )
    assert relative(block._attend(x)[0], torch.cat([vertical, horizontal], -1)) < 1e-5


def stripes_of_width_4(
    branch: torch.nn.Module, qkv: Tensor, pad: tuple[int, int], turned: bool = False
) -> Tensor:
    """Vertical stripes of width 4, one head of 4 channels, on (H, W, 3, 4), transposed if ``turned``."""
    qkv = F.pad(qkv, (0, 0, 0, 0, *pad))
    kernel = branch.get_v.weight.mT if turned else branch.get_v.weight
    out = []
    for start in range(0, qkv.shape[1], 4):
        q, k, v = qkv[:, start : start + 4].unbind(2)
        mixed = (q.reshape(-1, 4) @ k.reshape(-1, 4).T / 2).softmax(-1) @ v.reshape(-1, 4)
        lepe = F.conv2d(v.permute(2, 0, 1)[None], kernel, branch.get_v.bias, padding=1, groups=4)[0]
        out.append(mixed.view_as(v) + lepe.permute(1, 2, 0))
    return torch.cat(out, 1)[:, pad[0] : qkv.shape[1] - pad[1]]
