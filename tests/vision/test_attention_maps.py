"""Attention maps and class activation: known on constructed models, consistent on every backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import ClassifierHead
from torch import Tensor, nn
from vision_tools import image, randomized

from graphrec import vision
from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.images import shape_images
from graphrec.vision.explain import attention_maps, attention_rollout, class_activation, draw_attention
from graphrec.vision.layers.attention import GridAttention
from graphrec.vision.layers.stage import Stage

TINY = vision.list_models(tests=True)
every = pytest.mark.parametrize("name", TINY)


class Mix(nn.Module):
    """Attention with a residual, on maps with channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn = GridAttention(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)


class Looker(vision.Backbone):
    """Patches of 4 pixels; every position looks at the patch with the most light in its first channel."""

    layout = "NHWC"

    def __init__(self) -> None:
        super().__init__(features=[(3, 4)], img_size=32, in_chans=3, num_classes=2)
        self.stages = nn.ModuleList([Stage([Mix(3)])])
        self.head = ClassifierHead(3, 2, pool_type="avg", input_fmt="NHWC")
        attn = self.stages[0].blocks[0].attn
        with torch.no_grad():
            attn.qkv.weight.zero_(), attn.qkv.bias.zero_()
            attn.qkv.bias[0] = 40.0  # the query is the same everywhere
            attn.qkv.weight[3, 0] = 1.0  # the key is the light in the first channel
            attn.qkv.weight[6:, :] = torch.eye(3)
            attn.proj.weight.copy_(torch.eye(3)), attn.proj.bias.zero_()

    def embed(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 4).permute(0, 2, 3, 1)


def lit(row: int, column: int) -> Tensor:
    """A dark picture with one bright patch."""
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
    return x


@pytest.mark.parametrize(("row", "column"), [(0, 0), (2, 5), (7, 1)])
def test_attention_finds_the_place_that_all_look_at(row: int, column: int) -> None:
    [layer] = attention_maps(Looker(), torch.cat([lit(row, column), lit(4, 4)]))
    assert layer.name == "stages.0.blocks.0.attn"
    assert layer.grid == (8, 8)
    assert layer.weights.shape == (2, 64, 64)
    logit = 40 / 3**0.5
    share = np.exp(logit) / (np.exp(logit) + 63)
    received = layer.received()
    assert received[0, row, column] == pytest.approx(share, rel=1e-4)
    assert received[1, 4, 4] == pytest.approx(share, rel=1e-4)
    rolled = attention_rollout([layer])
    assert rolled[0, row, column] == pytest.approx((share + 1 / 64) / 2, rel=1e-4)
    assert rolled[0, (row + 1) % 8, column] == pytest.approx(((1 - share) / 63 + 1 / 64) / 2, rel=1e-3)


def test_class_activation_of_pooling_and_a_linear_layer_is_known() -> None:
    class Plain(vision.Backbone):
        def __init__(self) -> None:
            super().__init__(features=[(4, 4)], img_size=32, in_chans=3, num_classes=3)
            self.stem = nn.Conv2d(3, 4, 4, 4)
            self.stages = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1)])
            self.head = ClassifierHead(4, 3, pool_type="avg")

    model = Plain().requires_grad_(False)
    x = torch.randn(5, 3, 32, 32)
    target = torch.tensor([0, 1, 2, 1, 0])
    maps = model.stages[0](model.stem(x))
    expected = torch.einsum("bc,bchw->bhw", model.head.fc.weight[target], maps).relu()
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(class_activation(model, x, target), expected)
    best = model(x).argmax(1)
    torch.testing.assert_close(class_activation(model, x), class_activation(model, x, best))
    with pytest.raises(ConfigError, match=r"target=\[3, 3, 3, 3, 3\]"):
        class_activation(model, x, 3)
    with pytest.raises(ConfigError, match="stage=1: the model has stages 0 to 0"):
        class_activation(model, x, stage=1)
    with pytest.raises(ConfigError, match="has no classifier"):
        class_activation(vision.create_model("swin_test", num_classes=0), x)


@every
def test_every_backbone_has_a_class_activation(name: str) -> None:
    model = randomized(vision.create_model(name, num_classes=5)).train()
    x = image(model)
    found = torch.stack([class_activation(model, x, target) for target in range(5)])
    assert found.shape[:2] == (5, 2)
    assert found.isfinite().all()
    assert found.amin() >= 0
    assert found.amax() == pytest.approx(1)
    assert model.training
    assert found.shape[-1] == 1 or not torch.equal(found[:, 0], found[:, 1])
    assert all(one.grad is None for one in model.parameters())


@every
def test_attention_of_every_backbone_is_a_distribution(name: str) -> None:
    model = randomized(vision.create_model(name, num_classes=5)).train()
    x = image(model)
    maps = attention_maps(model, x)
    assert model.training
    for one in maps:
        rows, columns = one.weights.shape[1:]
        assert columns == one.grid[0] * one.grid[1] + one.token
        assert rows in (columns, 1)
        torch.testing.assert_close(one.weights.sum(-1), torch.ones(2, rows), atol=1e-5, rtol=0)
        assert (one.weights >= 0).all()
        assert one.received().shape == (2, *one.grid)
    if not maps:
        assert name.startswith(("convnext", "davit", "ecanet", "pvt_v2_li"))
        with pytest.raises(ConfigError, match="no layer has attention over the picture"):
            attention_rollout(maps)
        return
    if name.startswith("crossvit"):
        return
    rolled = attention_rollout(maps)
    torch.testing.assert_close(rolled.sum((1, 2)), torch.ones(2))
    assert (rolled >= 0).all()
    alone = attention_rollout(attention_maps(model, x[1:]))
    torch.testing.assert_close(alone, rolled[1:], atol=1e-5, rtol=1e-3)


def test_the_rollout_is_the_product_of_all_layers() -> None:
    model = randomized(vision.create_model("swin_test", num_classes=5))
    maps = attention_maps(model, image(model))
    assert [one.grid for one in maps] == [(8, 8)] * 2 + [(4, 4)] * 2
    product = torch.eye(64).expand(2, -1, -1)
    pool = torch.zeros(16, 64)
    for place in range(64):
        pool[(place // 8 // 2) * 4 + place % 8 // 2, place] = 0.25
    for number, one in enumerate(maps):
        if number == 2:
            product = pool @ product
        product = (one.weights + torch.eye(one.weights.shape[-1])) / 2 @ product
    torch.testing.assert_close(attention_rollout(maps).flatten(1), product.mean(1))


def test_recorded_attention_is_what_was_computed() -> None:
    """A layer's values are replaced by the numbers of the places: attention then returns its own weights."""
    model = randomized(vision.create_model("swin_test", num_classes=5))
    attn = model.stages[0].blocks[1].attn
    assert attn.heads == 1
    seen: dict[str, Tensor] = {}

    def number_places(_module: nn.Module, _inputs: object, qkv: Tensor) -> Tensor:
        width = qkv.shape[-1] // 3
        numbers = torch.eye(64)[:, :width].reshape(1, 8, 8, width).expand(len(qkv), 8, 8, width)
        return torch.cat([qkv[..., : 2 * width], numbers], -1)

    attn.qkv.register_forward_hook(number_places)
    attn.proj.register_forward_hook(lambda _m, given, _o: seen.__setitem__("mixed", given[0]))
    maps = {one.name: one for one in attention_maps(model, image(model))}
    weights = maps["stages.0.blocks.1.attn"].weights
    mixed = seen["mixed"].flatten(1, 2)  # on as many places as there are channels
    torch.testing.assert_close(weights[..., : mixed.shape[-1]], mixed)
    assert 0 < int((mixed > 0).sum()) < mixed.numel()
    # Windows of four by four, shifted: a place sees at most sixteen others.
    assert int((weights > 0).sum(-1).max()) <= 16


def test_branches_side_by_side_are_no_chain() -> None:
    model = vision.create_model("crossvit_test", num_classes=5)
    maps = attention_maps(model, image(model))
    assert maps
    with pytest.raises(ConfigError, match="branches of several resolutions"):
        attention_rollout(maps)


def test_drawing(tmp_path: Path) -> None:
    model = Looker()
    model.default_cfg = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0, 0, 0), "std": (1, 1, 1)}
    picture = Image.fromarray((lit(2, 5)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    figure = draw_attention(model, picture, path=tmp_path / "a.png", classes=["cat", "dog"])
    assert (tmp_path / "a.png").stat().st_size > 3000
    left, right = figure.axes[:2]
    assert left.get_title().split()[0] in ("cat", "dog")
    assert right.get_title() == "attention through all layers"
    np.testing.assert_array_equal(left.images[0].get_array(), np.asarray(picture))
    heat = np.asarray(right.images[1].get_array())
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row // 4, column // 4) == (2, 5)
    layer = draw_attention(model, picture, method="layer", layer="stages.0.blocks.0.attn")
    assert layer.axes[1].get_title() == "attention in stages.0.blocks.0.attn"


def test_drawing_several_and_what_is_refused(tmp_path: Path) -> None:
    images = shape_images(3, 32)
    model = vision.create_model("convnext_test", num_classes=4)
    figure = draw_attention(model, images)
    titles = [axes.get_title() for axes in figure.axes if axes.images and axes.get_title()]
    assert titles.count("class activation") == 3
    images.pil(0).save(tmp_path / "x.png")
    assert len(draw_attention(model, tmp_path / "x.png", target=1).axes) == 3
    assert len(draw_attention(model, np.zeros((32, 32, 3), np.uint8)).axes) == 3
    for options, words in (
        ({"method": "magic"}, "method='magic': must be one of auto"),
        ({"method": "rollout"}, "no layer has attention"),
        ({"method": "layer"}, "no layer has attention"),
        ({"target": 9}, "the model has classes 0 to 3"),
    ):
        with pytest.raises(ConfigError, match=words):
            draw_attention(model, images, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="17 are too many"):
        draw_attention(model, shape_images(17, 32))
    swin = vision.create_model("swin_test", num_classes=4)
    with pytest.raises(ConfigError, match=r"layer=9: must be a number below 4 or one of stages\.0"):
        draw_attention(swin, images, method="layer", layer=9)
    with pytest.raises(DataError, match="no such file"):
        draw_attention(model, tmp_path / "missing.png")
