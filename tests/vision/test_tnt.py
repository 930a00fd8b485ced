"""TNT against timm's implementation."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.tnt import TNT, checkpoint_filter_fn
from torch import Tensor, nn
from vision_tools import assert_equals_timm, assert_official_keys

from graphrec import vision


def to_timm(state: dict[str, Tensor], peer: nn.Module) -> dict[str, Tensor]:
    """timm's names; its converter takes the unused tokens out of what it is given."""
    return checkpoint_filter_fn(dict(state), peer)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_equals_timm(size: tuple[int, int]) -> None:
    model = vision.create_model("tnt_test", num_classes=11, drop_path_rate=0.0, img_size=size)
    peer = TNT(
        img_size=size,
        patch_size=8,
        embed_dim=16,
        inner_dim=8,
        depth=2,
        num_heads_inner=2,
        num_heads_outer=4,
        num_classes=11,
    )
    assert_equals_timm(model, peer, [size], to_timm)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    model = vision.create_model("tnt_s_patch16_224", drop_path_rate=0.0)
    assert_equals_timm(model, timm.create_model("tnt_s_patch16_224"), [(224, 224)], to_timm)


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("tnt_test"))


def test_unused_tokens_are_made_again() -> None:
    state = vision.official_state(vision.create_model("tnt_test"))
    assert torch.equal(state["outer_tokens"], torch.zeros(1, 16, 16))
