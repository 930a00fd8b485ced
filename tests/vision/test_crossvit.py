"""CrossViT against timm's implementation."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.crossvit import CrossVit
from torch import Tensor, nn
from torch.nn import functional as F
from vision_tools import assert_equals_timm, assert_official_keys, image, randomized, relative

from graphrec import vision
from graphrec.errors import ConfigError


def to_timm(state: dict[str, Tensor], peer: nn.Module) -> dict[str, Tensor]:
    """timm's names, as the filter in its builder makes them of the official ones."""
    return {
        name.replace(".", "_") if name.startswith(("pos_embed", "cls_token")) else name: one
        for name, one in state.items()
    }


def timms(size: int | tuple[int, int], *, multi_conv: bool, pool: str = "token") -> CrossVit:
    """What `crossvit_test` and `crossvit_dagger_test` are, with 11 classes."""
    return CrossVit(
        img_size=size,
        img_scale=(1.0, 8 / 9),
        patch_size=(12, 16),
        num_classes=11,
        embed_dim=(8, 16),
        depth=((1, 2, 0), (1, 1, 0)),
        num_heads=(2, 4),
        mlp_ratio=(3, 3, 1),
        multi_conv=multi_conv,
        global_pool=pool,
    )


@pytest.mark.parametrize("size", [(36, 36), (36, 72)])
@pytest.mark.parametrize("name", ["crossvit_test", "crossvit_dagger_test"])
def test_equals_timm(name: str, size: tuple[int, int]) -> None:
    model = vision.create_model(name, num_classes=11, drop_path_rate=0.0, img_size=size)
    assert_equals_timm(model, timms(size, multi_conv="dagger" in name), [size], to_timm)


def test_images_of_another_size_are_resized() -> None:
    model = vision.create_model("crossvit_test", num_classes=11, drop_path_rate=0.0)
    assert_equals_timm(model, timms(36, multi_conv=False), [(41, 29), (60, 50)], to_timm)
    x = image(model, (41, 29))
    assert (
        relative(model(F.interpolate(x, size=(36, 36), mode="bicubic")), model(x)) > 1e-3
    )  # once, not twice


def test_patches_can_be_averaged() -> None:
    model = vision.create_model("crossvit_test", num_classes=11, global_pool="avg")
    assert_equals_timm(model, timms(36, multi_conv=False, pool="avg"), [(36, 36)], to_timm)
    model.reset_classifier(3, "token")
    tokens = model.forward_features(image(model))
    assert torch.equal(
        model.forward_head(tokens, pre_logits=True), torch.cat([one[:, 0] for one in tokens], 1)
    )
    with pytest.raises(ConfigError, match="global_pool: 'max'"):
        model.reset_classifier(3, "max")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crossvit_tiny_240", "crossvit_9_dagger_240"])
def test_published_size_equals_timm(name: str) -> None:
    model = vision.create_model(name, drop_path_rate=0.0)
    assert_equals_timm(model, timm.create_model(name), [(240, 240)], to_timm)


@pytest.mark.parametrize("name", ["crossvit_test", "crossvit_dagger_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))


def test_official_names_are_timms() -> None:
    """But for the dot in the names of positions and tokens, timm kept them."""
    for name in ("crossvit_15_240", "crossvit_15_dagger_408"):
        with torch.device("meta"):
            model, peer = vision.create_model(name), timm.create_model(name)
        found = {key: one.shape for key, one in to_timm(vision.official_state(model), peer).items()}
        assert found == {key: one.shape for key, one in peer.state_dict().items()}


def test_positions_of_another_size() -> None:
    model = randomized(vision.create_model("crossvit_test"))
    state = vision.official_state(model)
    larger = vision.create_model("crossvit_test", img_size=72)
    vision.load_weights(larger, state)
    for branch, side in (("0", 3), ("1", 2)):
        old = state[f"pos_embed.{branch}"]
        grid = old[:, 1:].mT.unflatten(2, (side, side))
        wanted = F.interpolate(grid, scale_factor=2, mode="bicubic", align_corners=False).flatten(2).mT
        found = larger.branches[int(branch)].pos_embed
        torch.testing.assert_close(found.data, torch.cat([old[:, :1], wanted], 1))


def test_maps_of_either_branch() -> None:
    """Those of small patches come first, and fewer stages are kept for fewer maps."""
    model = randomized(vision.create_model("crossvit_test"))
    x = image(model)
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert [tuple(one.shape[1:]) for one in maps] == [(8, 3, 3), (8, 3, 3), (16, 2, 2), (16, 2, 2)]
    pyramid = vision.create_model("crossvit_test", features_only=True, out_indices=(0, 2)).eval()
    pyramid.model.load_state_dict(model.state_dict(), strict=False)
    assert len(pyramid.model.stages) == 1
    assert pyramid.feature_info.channels() == [8, 16]
    for found, wanted in zip(pyramid(x), (maps[0], maps[2]), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(ConfigError, match=r"indices: \[3\] are maps of stages that were pruned"):
        pyramid.model.forward_intermediates(x, indices=[0, 3])


def test_three_convolutions_know_two_patches() -> None:
    with pytest.raises(ConfigError, match="patch_sizes: 8 is not 12 or 16"):
        vision.create_model("crossvit_dagger_test", patch_sizes=(8, 16))
