"""ConvNeXt against timm's implementation; its isotropic form, which timm lacks, against the official code."""

from __future__ import annotations

import pytest
import timm
from timm.models.convnext import ConvNeXt, checkpoint_filter_fn
from vision_tools import assert_equals_recording, assert_equals_timm, assert_official_keys

from graphrec import vision

SMALL = {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 20), "num_classes": 11}


def test_equals_timm() -> None:
    model = vision.create_model("convnext_test", **SMALL)
    peer = ConvNeXt(**SMALL)
    assert_equals_timm(model, peer, [(32, 32), (70, 37)], checkpoint_filter_fn)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    model, peer = vision.create_model("convnext_tiny"), timm.create_model("convnext_tiny")
    assert_equals_timm(model, peer, [(224, 224), (250, 201)], checkpoint_filter_fn)


def test_isotropic_equals_official() -> None:
    assert_equals_recording(
        vision.create_model("convnext_isotropic_test", num_classes=11), "convnext_isotropic"
    )


@pytest.mark.parametrize("name", ["convnext_test", "convnext_isotropic_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))
