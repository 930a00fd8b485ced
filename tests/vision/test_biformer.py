"""BiFormer against recordings of the official code."""

from __future__ import annotations

import pytest
import torch
from vision_tools import assert_equals_recording, assert_official_keys

from graphrec import vision
from graphrec.errors import ConfigError, DataError


@pytest.mark.parametrize("form", ["biformer", "biformer_stl", "biformer_stl_nchw"])
def test_equals_official(form: str) -> None:
    """On maps that the regions divide, and but for the older STL on some that they do not."""
    assert_equals_recording(vision.create_model(f"{form}_test", num_classes=11), form)


@pytest.mark.parametrize("name", ["biformer_test", "biformer_stl_test", "biformer_stl_nchw_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))


def test_refactored_is_for_the_swin_layout() -> None:
    with pytest.raises(ConfigError, match="refactored=True: only with swin_layout=True"):
        vision.create_model("biformer_test", refactored=True)


def test_refactored_takes_no_map_smaller_than_its_regions() -> None:
    """The official code divides by zero there; its older form pads such a map."""
    with pytest.raises(DataError, match="112"):
        vision.create_model("biformer_stl_nchw").eval()(torch.zeros(1, 3, 96, 128))
