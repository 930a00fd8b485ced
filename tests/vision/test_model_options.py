"""What every backbone can be made with and given, and how it refuses the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tiny_models import every, tiny
from vision_tools import image, odd_size

from graphrec import vision
from graphrec.errors import ConfigError, DataError


@every
def test_other_sizes(name: str) -> None:
    model = tiny(name)
    odd = odd_size(model)
    if model.fixed_size:
        with pytest.raises(DataError, match=r"img_size=\("):
            model(image(model, odd))
        model = tiny(name, img_size=odd)
    assert model(image(model, odd)).isfinite().all()
    maps = model.forward_intermediates(image(model, odd), intermediates_only=True)
    assert all(one.isfinite().all() for one in maps)


BAD_OPTIONS = [
    ({"num_classes": -1}, "num_classes: -1 is not allowed; it is a whole number"),
    ({"num_classes": "10"}, "num_classes: '10' is not allowed"),
    ({"num_classes": 2.5}, "num_classes: 2.5 is not allowed"),
    ({"in_chans": 0}, "in_chans: 0 is not allowed"),
    ({"img_size": "32"}, "img_size: '32' is not allowed; it is a number of pixels"),
    ({"img_size": (32, 32, 3)}, r"img_size: \(32, 32, 3\) is not allowed"),
    ({"drop_path_rate": 2.0}, "drop_path_rate: 2.0 is not allowed; it is at least 0"),
    ({"drop_rate": -1.0}, "drop_rate: -1.0 is not allowed"),
    ({"global_pool": "best"}, "global_pool: 'best' is not"),
    ({"features_only": True, "feature_cls": "fx"}, "feature_cls: 'fx' is not 'getter'"),
    ({"features_only": True, "out_indices": (9,)}, r"out_indices: \(9,\) is not among"),
]


BAD_VALUES = [
    ("convnext_test", {"img_size": (32,)}, r"img_size: \(32,\) is not allowed"),
    ("convnext_test", {"patch_size": 0}, "patch_size: 0 is not allowed; it is a whole number from 1 up"),
    ("swin_test", {"window_size": 3.5}, "window_size: 3.5 is not allowed"),
    ("convnext_test", {"depths": (1, 1, 1)}, r"dims: \(8, 16\) has 2 entries, and depths 3"),
    ("swin_test", {"depths": 3}, "depths: 3 is not allowed; it is a sequence"),
    ("swin_test", {"num_heads": (3, 5)}, "num_heads: 3 heads do not divide 8 channels"),
    ("convnext_test", {"dims": (0, 16)}, r"convnext_test: cannot be made with dims=\(0, 16\) \(groups must"),
    ("convnext_test", {"layer_scale": "x"}, "convnext_test: cannot be made with layer_scale='x'"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_VALUES, ids=lambda value: str(value)[:30])
def test_values_that_no_layer_can_have(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vision.create_model(name, **options)


@every
def test_no_pictures_at_all(name: str) -> None:
    model = vision.create_model(name, num_classes=5)
    out = model(torch.zeros(0, 3, *model.img_size, requires_grad=True))
    assert out.shape == (0, 5)
    out.sum().backward()
    assert all(one.grad is None or not one.grad.any() for one in model.parameters())


def test_no_such_number_of_classes() -> None:
    model = vision.create_model("swin_test", num_classes=5)
    with pytest.raises(ConfigError, match="num_classes: -1 is not allowed"):
        model.reset_classifier(-1)


@pytest.mark.parametrize("name", ["swin_test", "tnt_test"])
@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=lambda value: str(value)[:30])
def test_options_that_the_model_cannot_take(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vision.create_model(name, **options)


@pytest.mark.parametrize("name", ["swin_test", "tnt_test"])
def test_a_pooling_and_maps_that_there_are_not(name: str) -> None:
    model = vision.create_model(name, num_classes=5)
    pooling, before = model.global_pool, model.get_classifier()
    with pytest.raises(ConfigError, match="global_pool: 'best' is not"):
        model.reset_classifier(7, "best")
    assert (model.num_classes, model.global_pool) == (5, pooling)
    assert model.get_classifier() is before
    for indices in ([17], 99):
        with pytest.raises(ConfigError, match=re.escape(f"indices={indices}: ")):
            model.forward_intermediates(torch.zeros(1, 3, *model.img_size), indices=indices)


def test_a_name_is_a_text() -> None:
    with pytest.raises(ConfigError, match="model: 3 is no name"):
        vision.create_model(3)  # type: ignore[arg-type]


@every
def test_images_that_the_model_cannot_take(name: str) -> None:
    model = tiny(name)
    x = image(model)
    with pytest.raises(DataError, match=r"\(batch, 3, height, width\)"):
        model(x[:, :2])
    with pytest.raises(DataError, match=r"\(batch, 3, height, width\)"):
        model(x[0])
    with pytest.raises(DataError, match=r"torch.uint8 must be a floating type"):
        model(torch.zeros_like(x, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"torch.float64, but the weights are torch.float32"):
        model(x.double())
    with pytest.raises(DataError, match=r"torch.float16, but the weights are torch.float32"):
        model(x.half())
    with pytest.raises(DataError, match="ndarray is no tensor"):
        model(x.numpy())
    small = max(model.smallest - 1, 1)
    if small < model.smallest:
        with pytest.raises(DataError, match=r"image: .*"):
            model(x[..., :small, :small])
        with pytest.raises(ConfigError, match="img_size"):
            vision.create_model(name, img_size=small)
    if model.multiple > 1:
        with pytest.raises(ConfigError, match=f"multiples of {model.multiple}"):
            vision.create_model(name, img_size=model.img_size[0] + 1)


@every
def test_another_number_of_channels(name: str) -> None:
    model = tiny(name, in_chans=5)
    assert model(image(model)).shape == (2, 7)
