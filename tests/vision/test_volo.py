"""VOLO against timm's implementation."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.volo import VOLO
from vision_tools import assert_equals_timm, assert_official_keys, randomized, relative

from graphrec import vision
from graphrec.errors import RunError

SMALL = {"layers": (2, 1, 2, 1), "num_classes": 11}


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])  # 8x8 and 6x10 fine tokens
def test_equals_timm(size: tuple[int, int]) -> None:
    model = vision.create_model("volo_test", img_size=size, **SMALL)
    peer = VOLO(
        img_size=size,
        stem_hidden_dim=4,
        embed_dims=(8, 16, 16, 16),
        num_heads=(2, 4, 4, 4),
        **SMALL,
    )
    assert_equals_timm(model, peer, [size])


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    assert_equals_timm(vision.create_model("volo_d1_224"), timm.create_model("volo_d1_224"), [(224, 224)])


def test_windows_at_an_odd_border() -> None:
    """Maps of odd sides, which no image of the backbone makes but other users of the block have."""
    block = vision.create_model("volo_test").stages[0].blocks[0].attn.double()
    peer = timm.models.volo.OutlookAttention(8, 2, stride=2).double()
    peer.load_state_dict(block.state_dict())
    x = torch.randn(2, 5, 7, 8, dtype=torch.float64)
    assert relative(block(x), peer(x)) < 1e-12


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("volo_test"))


def test_positions_of_another_size() -> None:
    model = randomized(vision.create_model("volo_test", img_size=64))
    state = vision.official_state(model)
    larger = vision.create_model("volo_test", img_size=(96, 64))
    vision.load_weights(larger, state)
    old = state["pos_embed"].permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(old, size=(6, 4), mode="bicubic").permute(0, 2, 3, 1)
    assert torch.equal(larger.stages[1].downsample.pos_embed, wanted)
    with pytest.raises(RunError, match=r"pos_embed \(1, 4, 4, 7\)"):
        vision.load_weights(larger, {**state, "pos_embed": torch.zeros(1, 4, 4, 7)})
