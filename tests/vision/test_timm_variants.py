"""Every published variant that timm has too against timm's, whole: at its own size and at an odd one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
from test_crossvit import to_timm as crossvit_to_timm
from test_efficientvit_msra import to_timm as efficientvit_to_timm
from test_maxvit import without_stem
from test_shvit import to_timm as shvit_to_timm
from test_tnt import to_timm as tnt_to_timm
from timm.models import convnext, davit, maxxvit, pvt_v2, swin_transformer
from torch import Tensor
from vision_tools import assert_equals_peer, image

from graphrec import vision

SHARED = [name for name in vision.list_models() if timm.is_model(name)]
CONVERTERS: dict[str, Callable[..., Mapping[str, Tensor]]] = {
    "convnext": convnext.checkpoint_filter_fn,
    "crossvit": crossvit_to_timm,
    "davit": davit.checkpoint_filter_fn,
    "efficientvit_msra": efficientvit_to_timm,
    "maxvit": maxxvit.checkpoint_filter_fn,
    "pvt_v2": pvt_v2.checkpoint_filter_fn,
    "shvit": shvit_to_timm,
    "swin": swin_transformer.checkpoint_filter_fn,
    "tnt": tnt_to_timm,
}
"""timm's own converters of official checkpoints, where it has one, by system."""
LARGE = 200
"""GFLOPs from which on, as where none are published, what the gradients need is computed again for them."""
RESIZED = ("convit", "crossvit", "efficientvit_msra", "maxvit", "swin", "tnt", "volo")
"""Systems whose parameters, or timm's, are made for an image size."""


def odd_size(system: str, size: int) -> tuple[int, int]:
    """An image that is not square, or whose maps have odd sides; small where the system takes that."""
    sizes = {
        "convit": (176, 176),  # timm's positions are those of squares
        "convnext": (130, 97),
        "crossvit": (size // 2, size),
        "davit": (130, 97),
        "efficientvit_msra": (192, 256),
        "maxvit": (192, 224),
        "pvt_v2": (75, 101),
        "shvit": (160, 208),
        "swin": (size, 2 * size),  # timm moves a map before it pads it, so windows have to divide it
        "tnt": (192, 240),
        "volo": (160, 192),
    }
    return sizes[system]


def dtype_of(name: str, own: bool) -> torch.dtype:
    """float64 where rounding alone changes gradients by more than 1e-4.

    Random weights saturate the softmax of EfficientViT's last stages, and some of PVT v2's many ReLUs have
    inputs within rounding of zero (see `test_pvt_v2.py`); CrossViT-18-dagger at 408 pixels is off by 1.1e-4.
    Logits and maps agree in float32 there as well.
    """
    rounding = name in ("pvt_v2_b2_li", "crossvit_18_dagger_408") or (
        name.startswith("efficientvit") and not own
    )
    return torch.float64 if rounding else torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False], ids=["own", "odd"])
@pytest.mark.parametrize("name", SHARED)
def test_equals_timm(name: str, own: bool) -> None:
    card = vision.family(name).card
    system, side = card.name, card.variants[name].size
    size = (side, side) if own else odd_size(system, side)
    options: dict[str, Any] = {"img_size": size} if system in RESIZED else {}
    if card.variants[name].classes != 1000:
        options["num_classes"] = card.variants[name].classes
    model = vision.create_model(name, drop_path_rate=0.0, **options)
    peer = timm.create_model(name, **options)
    if system == "maxvit":
        peer = without_stem(peer, len(model.stages))
    if (card.variants[name].gflops or LARGE) >= LARGE:
        model.set_grad_checkpointing()
        peer.set_grad_checkpointing()
    convert = CONVERTERS.get(system, lambda state, _: state)
    dtype = dtype_of(name, own)
    # timm's gradient of EfficientViT for one image is wrong with torch 2.14.1 (by differences of its values).
    x = image(model, size, batch=2 if system == "efficientvit_msra" else 1)
    assert_equals_peer(model.to(dtype), peer.to(dtype), lambda state: convert(state, peer), x.to(dtype))
