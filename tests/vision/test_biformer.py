"""BiFormer against recordings of the official code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from vision_tools import assert_equals_recording, assert_official_keys

from graphrec import vision


@pytest.mark.parametrize("form", ["biformer", "biformer_stl"])
def test_equals_official(form: str) -> None:
    """On maps that the regions divide, and for BiFormer on some that they do not."""
    assert_equals_recording(vision.create_model(f"{form}_test", num_classes=11), form)


@pytest.mark.parametrize("name", ["biformer_test", "biformer_stl_test"])
def test_official_keys(name: str) -> None:
    assert_official_keys(vision.create_model(name))


PUBLISHED = {"biformer_tiny": 2.2, "biformer_small": 4.5, "biformer_base": 9.8, "biformer_stl": 4.6}
"""GFLOPs of the official table."""


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if "tiny" in one else pytest.mark.slow) for one in PUBLISHED]
)
def test_published_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the attention as it runs, and two products per routed pair and channel."""
    pairs = 0

    def routed(q: Tensor, k: Tensor, shape: tuple[int, int], region: tuple[int, int], topk: int) -> int:
        return region[0] * region[1] * topk

    def visible(
        q: Tensor, k: Tensor, v: Tensor, seen: int | None = None, scale: float | None = None
    ) -> Tensor:
        nonlocal pairs
        pairs += 2 * q.numel() * (q.shape[2] if seen is None else seen)
        return q

    monkeypatch.setattr("graphrec.vision.backbones.biformer.biformer_routing", routed)
    monkeypatch.setattr("graphrec.vision.backbones.biformer.attention", visible)
    with torch.device("meta"):
        model = vision.create_model(name).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert (counter.get_total_flops() / 2 + pairs) / 1e9 == pytest.approx(PUBLISHED[name], rel=0.03)
