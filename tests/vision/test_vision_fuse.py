"""Models fused for deployment: equal outputs, no norm left that could fold, of use as they were before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_tools import classifier, squares
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from vision_tools import image, odd_size, randomized, relative

from graphrec import vision
from graphrec.errors import ConfigError, RunError
from graphrec.vision import Backbone, ImageClassifier
from graphrec.vision.layers import GELU, ConvNorm, FoldingSequence, LinearNorm
from graphrec.vision.layers.fuse import is_fused

TINY = vision.list_models(tests=True)
PUBLISHED = vision.list_models()
every = pytest.mark.parametrize("name", TINY)
STAY = {
    "biformer": {
        "norm": "behind a sum and before the pooling: no convolution is beside it, and the normalised map is "
        "what forward_features gives"
    },
}
"""By system, batch norms that stay in a fused model, and why they cannot fold. All others must."""


def tiny(name: str, **options: object) -> Backbone:
    """A tiny variant, in evaluation mode, with weights and statistics that show what is broken."""
    return randomized(vision.create_model(name, num_classes=7, **options))


def batch_norms(model: nn.Module) -> set[str]:
    """Names of the batch norms of a model."""
    return {key for key, one in model.named_modules() if isinstance(one, _BatchNorm)}


def assert_only_those_stay(name: str) -> None:
    model = vision.create_model(name)
    fused = vision.fuse(model) if batch_norms(model) else model
    stay = set(STAY.get(vision.family(name).card.name, {}))
    assert batch_norms(fused) == stay, (
        "a batch norm beside a convolution folds in a layer with fused(), such as ConvNorm or "
        "FoldingSequence; one that cannot fold is named in STAY, with the reason"
    )


@every
def test_fused_for_deployment(name: str) -> None:
    model = tiny(name)
    before = {key: one.clone() for key, one in model.state_dict().items()}
    for size in (model.img_size, odd_size(model)):
        if model.fixed_size and size != model.img_size:
            model = tiny(name, img_size=size)
        x = image(model, size)
        state, wanted = model.forward_intermediates(x)
        fused = vision.fuse(model)
        found_state, found = fused.forward_intermediates(x)
        assert relative(fused(x), model(x)) < 1e-4
        assert all(relative(mine, other) < 1e-4 for mine, other in zip(found, wanted, strict=True))
        states = [one if isinstance(one, tuple) else (one,) for one in (found_state, state)]
        assert all(relative(mine, other) < 1e-4 for mine, other in zip(*states, strict=True))
        with torch.no_grad():  # activations then overwrite what they are given
            assert relative(fused(x), model(x)) < 1e-4
    model = tiny(name)
    training = [one.training for one in model.train().modules()]
    vision.fuse(model)
    after = model.state_dict()
    assert before.keys() == after.keys(), "the model itself must stay as it is"
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert [one.training for one in model.modules()] == training


@every
def test_batch_norms_that_stay(name: str) -> None:
    assert_only_those_stay(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_batch_norms_that_stay_in_published_variants(name: str) -> None:
    with torch.device("meta"):
        assert_only_those_stay(name)


def test_reasons_are_of_norms_that_there_are() -> None:
    for system, reasons in STAY.items():
        names = [name for name in TINY if vision.family(name).card.name == system]
        assert names
        assert all(reasons.values())
        assert all(reasons.keys() <= batch_norms(vision.create_model(name)) for name in names)


@every
def test_fused_model_is_drawn_as_before(name: str) -> None:
    model = tiny(name)
    fused, x = vision.fuse(model), image(model)
    maps, wanted = vision.attention_maps(fused, x), vision.attention_maps(model, x)
    assert [(one.name, one.grid) for one in maps] == [(one.name, one.grid) for one in wanted]
    for mine, other in zip(maps, wanted, strict=True):
        assert relative(mine.weights, other.weights) < 1e-4
    target = torch.tensor([1, 3])
    assert (
        relative(vision.class_activation(fused, x, target), vision.class_activation(model, x, target)) < 1e-3
    )


@every
def test_fused_model_has_weights_and_a_pyramid_of_its_own(name: str) -> None:
    fused = vision.fuse(tiny(name))
    x = image(fused)
    twin = vision.fuse(vision.create_model(name, num_classes=7))
    twin.load_state_dict(fused.state_dict())
    assert torch.equal(twin(x), fused(x))
    assert torch.equal(vision.fuse(fused)(x), fused(x)), "nothing is left to fold"
    pyramid = vision.create_model(name, features_only=True).eval()
    assert all(
        relative(mine, other) < 1e-4 for mine, other in zip(vision.fuse(pyramid)(x), pyramid(x), strict=True)
    )


def test_fused_model_has_no_official_weights(tmp_path: Path) -> None:
    """The official code has no place for them; what it would be given looked like a checkpoint."""
    model = vision.create_model("maxvit_test")
    fused = vision.fuse(model)
    assert is_fused(fused)
    assert not is_fused(model)
    with pytest.raises(ConfigError, match="model: is fused for deployment and has no official weights"):
        vision.save_weights(fused, tmp_path / "a.safetensors", official=True)
    assert not list(tmp_path.iterdir())
    vision.save_weights(fused, tmp_path / "a.safetensors")
    with pytest.raises(RunError, match=r"a\.safetensors: does not fit MaxViT of this variant; keys missing"):
        vision.create_model("maxvit_test", pretrained=tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["shvit_test", "biformer_test"])
def test_fused_classifiers_predict_as_before_and_are_saved(name: str, tmp_path: Path) -> None:
    model = classifier(model=name, image_size=64, epochs=1).fit(*squares(24, 64))
    pixels = squares(8, 64)[0]
    before = model.predict_proba(pixels)
    model.module_ = vision.fuse(model.module_)
    fused = model.predict_proba(pixels)
    np.testing.assert_allclose(fused, before, atol=1e-5)
    loaded = ImageClassifier.load(model.save(tmp_path / "run"))
    assert is_fused(loaded.module_)
    np.testing.assert_array_equal(loaded.predict_proba(pixels), fused)
    again = ImageClassifier.load(loaded.save(tmp_path / "again"))
    np.testing.assert_array_equal(again.predict_proba(pixels), fused)


def settled(module: nn.Module) -> nn.Module:
    """A module whose batch norms have seen data, in evaluation mode."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(one.running_mean, -1, 1)
            nn.init.uniform_(one.running_var, 0.5, 2)
            nn.init.uniform_(one.weight, 0.5, 2)
            nn.init.uniform_(one.bias, -1, 1)
    return module.eval()


@pytest.mark.parametrize("groups", [1, 4])
def test_convolution_and_norm_become_one(groups: int) -> None:
    layer = settled(ConvNorm(8, 12, 3, 2, 1, groups))
    x = torch.randn(2, 8, 9, 9)
    fused = vision.fuse(layer)
    assert isinstance(fused, nn.Conv2d)
    assert torch.allclose(fused(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_norm_and_linear_become_one(bias: bool) -> None:
    layer = settled(LinearNorm(8, 3, bias=bias))
    x = torch.randn(5, 8)
    fused = vision.fuse(nn.Sequential(layer))
    assert isinstance(fused[0], nn.Linear)
    assert torch.allclose(fused(x), layer(x), atol=1e-5)


class PaddingConv2d(nn.Conv2d):
    """Pads in its forward, which its own padding of zero does not say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


def _act(dim: int) -> nn.Module:
    return BatchNormAct2d(dim, act_layer="relu")


CHAINS = {
    "behind": ([nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), GELU()], 0),
    "in front": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 2, 2)], 0),
    "in front, groups, no bias": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, groups=2, bias=False)], 0),
    "in front, depthwise": ([nn.BatchNorm2d(4), nn.Conv2d(4, 8, 2, groups=4)], 0),
    "both sides": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, bias=False), _act(6), nn.Conv2d(6, 2, 1)], 0),
    "between": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 3, padding=1)], 0),
    "a 1x1 kernel of another class": ([nn.BatchNorm2d(4), type("Own", (nn.Conv2d,), {})(4, 6, 1)], 0),
    "in front of padding": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1)], 1),
    "in front of padding in forward": ([nn.BatchNorm2d(4), PaddingConv2d(4, 6, 2, 2)], 1),
    "in front of a padded 1x1": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, padding=1)], 1),
    "an activation in front": ([_act(4), nn.Conv2d(4, 6, 1)], 1),
    "an activation of its own in front": ([nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1)], 1),
}
"""Layers one after the other, and how many of their batch norms stay."""


@pytest.mark.parametrize("what", CHAINS)
def test_norms_fold_into_convolutions_beside_them(what: str) -> None:
    layers, stay = CHAINS[what]
    chain = settled(FoldingSequence(*layers))
    x = torch.randn(2, 4, 7, 9)
    wanted = chain(x)
    fused = vision.fuse(chain)
    assert len(batch_norms(fused)) == stay
    assert relative(fused(x), wanted) < 1e-5
    assert torch.equal(chain(x), wanted)
    frozen = vision.fuse(chain.requires_grad_(False))
    assert not any(one.requires_grad for one in frozen.parameters())
