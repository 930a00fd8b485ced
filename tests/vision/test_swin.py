"""Swin against timm's implementation, and its tables."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from vision_tools import assert_equals_timm, assert_official_keys, image, randomized, relative

from graphrec import vision
from graphrec.errors import RunError

SMALL = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "num_classes": 11}


def test_equals_timm() -> None:
    model = vision.create_model("swin_test", window_size=4, drop_path_rate=0.0, **SMALL)
    for size in [(64, 64), (64, 128)]:
        peer = SwinTransformer(img_size=size, window_size=4, drop_path_rate=0.0, **SMALL)
        assert_equals_timm(model, peer, [size], checkpoint_filter_fn)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    name = "swin_tiny_patch4_window7_224"
    model = vision.create_model(name, drop_path_rate=0.0)
    for size in [(224, 224), (224, 448)]:
        peer = timm.create_model(name, drop_path_rate=0.0, img_size=size)
        assert_equals_timm(model, peer, [size], checkpoint_filter_fn)


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("swin_test"))


def test_index_buffers_are_those_of_the_official_code() -> None:
    model = vision.create_model("swin_test")
    index = vision.official_state(model)["layers.0.blocks.1.attn.relative_position_index"]
    from timm.models.swin_transformer import get_relative_position_index

    assert torch.equal(index, get_relative_position_index(4, 4))


def test_small_maps_use_the_middle_of_the_table() -> None:
    """A window larger than the map is cut to it, on each axis alone, and does not shift."""
    model = randomized(vision.create_model("swin_test", window_size=8))
    peer = randomized(vision.create_model("swin_test", window_size=4))
    state = model.state_dict()
    for name, table in list(state.items()):
        if name.endswith("bias_table") and name.startswith("stages.1"):
            state[name] = table.view(15, 15, -1)[4:11, 4:11].reshape(49, -1)
        elif name.endswith("bias_table"):
            state[name] = peer.state_dict()[name]
    del state["stages.0.blocks.0.attn.relative_position_bias_table"]
    x = torch.randn(2, 4, 4, 16)
    peer.load_state_dict(state, strict=False)
    assert relative(model.stages[1].blocks(x), peer.stages[1].blocks(x)) < 1e-6


def test_padded_maps_join_as_zeros_before_the_shift() -> None:
    """What the official detectors do with maps that windows do not divide."""
    model = randomized(vision.create_model("swin_test"))
    block = model.stages[0].blocks[1]
    x = torch.randn(1, 6, 7, 8)
    grown = torch.zeros(1, 8, 8, 8)
    grown[:, :6, :7] = block.norm1(x)
    from graphrec.vision.layers import shifted_windows

    wanted = block.attn(grown, shifted_windows((8, 8), (4, 4), True))[:, :6, :7]
    assert relative(block._attend(block.norm1(x), shifted_windows((6, 7), (4, 4), True)), wanted) < 1e-6


def test_tables_of_another_window_are_resized() -> None:
    model = randomized(vision.create_model("swin_test"))
    other = vision.create_model("swin_test", window_size=6)
    vision.load_weights(other, vision.official_state(model))
    name = "stages.0.blocks.0.attn.relative_position_bias_table"
    old = model.state_dict()[name].T.view(1, 1, 7, 7)
    wanted = torch.nn.functional.interpolate(old, size=(11, 11), mode="bicubic").view(1, 121).T
    assert torch.equal(other.state_dict()[name], wanted)


def test_absolute_positions() -> None:
    model = randomized(vision.create_model("swin_test", absolute_positions=True))
    assert model(image(model)).isfinite().all()
    larger = vision.create_model("swin_test", absolute_positions=True, img_size=64)
    vision.load_weights(larger, vision.official_state(model))
    assert larger.absolute_pos_embed.shape == (1, 256, 8)


def test_tables_of_other_heads_do_not_load() -> None:
    state = vision.official_state(vision.create_model("swin_test"))
    with pytest.raises(RunError, match=r"relative_position_bias_table \(49, 1\), the model has \(121, 2\)"):
        vision.load_weights(vision.create_model("swin_test", window_size=6, num_heads=(2, 4)), state)
