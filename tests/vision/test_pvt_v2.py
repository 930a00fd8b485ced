"""PVT v2 against timm's implementation."""

from __future__ import annotations

import pytest
import timm
from timm.models.pvt_v2 import PyramidVisionTransformerV2, checkpoint_filter_fn
from vision_tools import assert_equals_timm, assert_official_keys

from graphrec import vision

SMALL = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 2, 3, 4),
    "mlp_ratios": (4, 4, 2, 2),
    "sr_ratios": (8, 4, 2, 1),
    "num_classes": 11,
}


def test_equals_timm() -> None:
    model = vision.create_model("pvt_v2_test", **SMALL)
    assert_equals_timm(
        model, PyramidVisionTransformerV2(**SMALL), [(64, 64), (75, 101)], checkpoint_filter_fn
    )


def test_linear_equals_timm() -> None:
    model = vision.create_model("pvt_v2_li_test", **SMALL)
    peer = PyramidVisionTransformerV2(**SMALL, linear=True)
    assert_equals_timm(model, peer, [(64, 64), (75, 45)], checkpoint_filter_fn)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    model = vision.create_model("pvt_v2_b0", drop_path_rate=0.0)
    assert_equals_timm(model, timm.create_model("pvt_v2_b0"), [(224, 224)], checkpoint_filter_fn)


@pytest.mark.slow
def test_linear_of_published_depth_equals_timm() -> None:
    """At 64 pixels: with more positions, ReLU at random weights has some on either side of zero."""
    model = vision.create_model("pvt_v2_b2_li", drop_path_rate=0.0)
    assert_equals_timm(model, timm.create_model("pvt_v2_b2_li"), [(64, 64)], checkpoint_filter_fn)


@pytest.mark.parametrize("name", ["pvt_v2_test", "pvt_v2_li_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))
