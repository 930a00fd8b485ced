"""DaViT against timm's implementation."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.davit import DaVit, checkpoint_filter_fn
from torch import Tensor
from vision_tools import assert_equals_timm, assert_official_keys

from graphrec import vision
from graphrec.vision.backbones.davit import ChannelAttention

SMALL = {"embed_dims": (8, 16), "depths": (1, 2), "num_heads": (1, 2), "window_size": 3, "num_classes": 11}


def test_equals_timm() -> None:
    model = vision.create_model("davit_test", drop_path_rate=0.0, **SMALL)
    assert_equals_timm(model, DaVit(**SMALL), [(32, 32), (50, 37)], checkpoint_filter_fn)


@pytest.mark.slow
def test_published_size_equals_timm() -> None:
    model, peer = vision.create_model("davit_tiny", drop_path_rate=0.0), timm.create_model("davit_tiny")
    assert_equals_timm(model, peer, [(224, 224), (250, 201)], checkpoint_filter_fn)


def test_official_keys() -> None:
    assert_official_keys(vision.create_model("davit_test"))


def test_channels_attend_over_the_whole_map() -> None:
    layer = ChannelAttention(6, 2, True)
    x = torch.randn(2, 3, 4, 6)
    q, k, v = layer.qkv(x.flatten(1, 2)).view(2, 12, 3, 2, 3).permute(2, 0, 3, 1, 4)
    mixed = ((k * 3**-0.5).mT @ v).softmax(-1) @ q.mT
    wanted = layer.proj(mixed.permute(0, 3, 1, 2).reshape(2, 3, 4, 6))
    torch.testing.assert_close(layer(x), wanted)


def test_a_compiled_graph_is_for_one_size_of_images() -> None:
    """Attention is planned for the map's size, and with symbols for it tracing takes several times as long.

    Without `Backbone.plans_by_size` the second graph has them as inputs.
    """
    symbols = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> torch.fx.GraphModule:
        symbols.append([one for one in inputs if not isinstance(one, Tensor)])
        return graph

    torch._dynamo.reset()
    model = vision.create_model("davit_test", num_classes=5).eval()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        for size in ((64, 64), (96, 64)):
            x = torch.randn(1, 3, *size)
            torch.testing.assert_close(compiled(x), model(x))
    assert symbols == [[], []]
