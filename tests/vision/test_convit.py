"""ConViT against timm's implementation, and its attention by position against the definition."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.convit import GPSA, ConVit
from vision_tools import assert_equals_timm, assert_official_keys, relative

from graphrec import vision
from graphrec.vision.backbones.convit import GatedAttention


def test_equals_timm() -> None:
    model = vision.create_model("convit_test", num_classes=11)
    peer = ConVit(
        img_size=32, patch_size=8, embed_dim=4, num_heads=4, depth=3, local_up_to_layer=2, num_classes=11
    )
    assert_equals_timm(model, peer, [(32, 32)])


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    model = vision.create_model("convit_tiny", drop_path_rate=0.0)
    assert_equals_timm(model, timm.create_model("convit_tiny"), [(224, 224)])


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("convit_test"))


def test_positions_by_axis() -> None:
    """The softmax over all pairs of a map that is not square, as equation 5 has it."""
    attn = GatedAttention(8, 4, (3, 5), 0.0).double()
    torch.nn.init.normal_(attn.pos_proj.weight, std=0.5)
    rows, columns = attn.pos_proj((3, 5))
    found = torch.einsum("hik,hjl->hijkl", rows, columns).reshape(4, 15, 15)
    place = torch.cartesian_prod(torch.arange(3.0), torch.arange(5.0)).double()
    down, right = (place[None] - place[:, None]).unbind(-1)
    form = torch.stack([right, down, right**2 + down**2])
    wanted = torch.einsum("hf,fij->hij", attn.pos_proj.weight, form).softmax(-1)
    assert relative(found, wanted) < 1e-12


@pytest.mark.parametrize("heads", [4, 9, 5])
def test_starts_as_a_convolution(heads: int) -> None:
    """Initial positions and values are those of timm, for square and other numbers of heads."""
    attn = GatedAttention(4 * heads, heads, (4, 4), 0.0)
    attn.reset()
    peer = GPSA(4 * heads, heads)
    peer.local_init()
    square = int(heads**0.5) ** 2
    assert torch.equal(attn.pos_proj.weight[:square], peer.pos_proj.weight[:square])
    assert torch.equal(attn.v.weight, peer.v.weight)
    assert torch.equal(attn.gating_param, peer.gating_param)
