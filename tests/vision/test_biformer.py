"""BiFormer against recordings of the official code."""

from __future__ import annotations

import pytest
from vision_tools import assert_equals_recording, assert_official_keys

from graphrec import vision


@pytest.mark.parametrize("form", ["biformer", "biformer_stl"])
def test_equals_official(form: str) -> None:
    """On maps that the regions divide, and for BiFormer on some that they do not."""
    assert_equals_recording(vision.create_model(f"{form}_test", num_classes=11), form)


@pytest.mark.parametrize("name", ["biformer_test", "biformer_stl_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))
