"""What every backbone must do, over all registered names: each system has a variant small enough for it."""

from __future__ import annotations

import copy
import re

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from timm.optim import param_groups_layer_decay
from tiny_models import TINY, every, tiny
from torch import Tensor, nn
from vision_tools import image, relative

from graphrec import vision
from graphrec.errors import ConfigError, DataError, RunError
from graphrec.registry import card
from graphrec.vision import Backbone

PUBLISHED = vision.list_models()
SYSTEMS = sorted({vision.family(name).card.name for name in TINY + PUBLISHED})
FIRST = {vision.family(name).card.name: name for name in reversed(TINY)}
"""One tiny variant of each system, for what takes seconds."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_published_variants_and_a_tiny_one(system: str) -> None:
    variants = card(system).variants
    assert any(one.published for one in variants.values())
    small = [name for name, one in variants.items() if not one.published]
    assert small
    for name in small:
        model = vision.create_model(name)
        assert sum(one.numel() for one in model.parameters()) < 300_000, f"{name} is too large for tests"
        assert max(model.img_size) <= 64


@every
def test_forward(name: str) -> None:
    model = tiny(name)
    x = image(model)
    logits = model(x)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert logits.std() > 0.01, "random weights must move the logits"
    assert relative(model.forward_head(model.forward_features(x)), logits) == 0
    alone = torch.cat([model(one) for one in x.split(1)])
    assert relative(alone, logits) < 1e-5, "images of a batch must not see each other"


@every
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = tiny(name, drop_path_rate=0.0).train()
    model(image(model, batch=4)).square().mean().backward()
    dead = [key for key, one in model.named_parameters() if one.grad is None or not one.grad.any()]
    assert not dead
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())


@every
def test_stochastic_depth_and_dropout_are_for_training(name: str) -> None:
    model = tiny(name, drop_path_rate=0.9, drop_rate=0.5)
    x = image(model)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@every
def test_feature_pyramid(name: str) -> None:
    model = tiny(name)
    pyramid = vision.create_model(name, features_only=True)
    pyramid.model.load_state_dict(model.state_dict(), strict=False)
    x = image(model)
    maps = pyramid.eval()(x)
    channels, reductions = pyramid.feature_info.channels(), pyramid.feature_info.reduction()
    for made, dim, reduction in zip(maps, channels, reductions, strict=True):
        sides = [-(-one // reduction) for one in model.img_size]
        assert made.shape == (2, dim, *sides)
    state, taken = model.forward_intermediates(x)
    assert all(relative(mine, other) < 1e-5 for mine, other in zip(maps, taken, strict=True))
    assert relative(model.forward_head(state), model(x)) < 1e-5


@every
def test_part_of_the_pyramid(name: str) -> None:
    model = tiny(name)
    x = image(model)
    whole = model.forward_intermediates(x, intermediates_only=True)
    (last,) = model.forward_intermediates(x, indices=1, intermediates_only=True)
    assert torch.equal(last, whole[-1])
    (first,) = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(first, whole[0])
    tokens = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
    assert torch.equal(tokens[0], whole[0].flatten(2).transpose(1, 2))
    (normed,) = model.forward_intermediates(x, indices=[-1], norm=True, intermediates_only=True)
    if normed.shape == whole[-1].shape:  # MobileNet's last convolution widens
        assert torch.equal(normed, whole[-1]) == isinstance(model.norm, nn.Identity)
    short = vision.create_model(name, features_only=True, out_indices=(0,))
    assert [one.shape for one in short(x)] == [whole[0].shape]
    assert len(short.model.stages) == 1
    with pytest.raises(ConfigError, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="LCN")


@every
def test_pruned_to_its_first_stage(name: str) -> None:
    model = tiny(name)
    x = image(model)
    (wanted,) = model.forward_intermediates(x, indices=[0], intermediates_only=True)
    shorter = len(model.stages) > 1
    model.prune_intermediate_layers([0])
    state, (found,) = model.forward_intermediates(x, indices=[0])
    assert torch.equal(found, wanted)
    left = [model.feature_map(one, 0) for one in (state, model(x))]
    assert torch.equal(*left)
    assert not shorter or torch.equal(left[0], wanted), "what is left gives its last state, without a norm"
    assert len(model.stages) == 1
    assert isinstance(model.get_classifier(), nn.Module)


@every
def test_default_configuration(name: str) -> None:
    model = vision.create_model(name)
    final = model.forward_features(image(model))
    if model.output_fmt == "NLC":
        assert all(one.dim() == 3 for one in (final if isinstance(final, tuple) else (final,)))
        assert model.default_cfg["pool_size"] is None
    else:
        tall, wide, dim = (model.output_fmt.index(one) for one in "HWC")
        assert (final.shape[tall], final.shape[wide]) == model.default_cfg["pool_size"]
        assert final.shape[dim] == model.num_features
    cfg = model.default_cfg
    assert cfg == model.pretrained_cfg
    assert cfg["architecture"] == f"graphrec_{name}"
    assert cfg["input_size"] == (3, *model.img_size)
    assert resolve_data_config({}, model=model)["input_size"] == cfg["input_size"]
    state = model.state_dict()
    for first in model.first_conv.split(","):
        assert state[f"{first}.weight"].shape[1] == 3
    for last in model.classifier.split(","):
        assert state[f"{last}.weight"].shape[0] == model.num_classes == 1000
    assert get_pretrained_cfg(f"graphrec_{name}").num_classes == 1000


@every
def test_classifier_can_be_replaced(name: str) -> None:
    model = tiny(name)
    x = image(model)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert features.shape == (2, model.head_hidden_size)
    model.reset_classifier(4)
    assert model(x).shape == (2, 4)
    assert isinstance(model.get_classifier(), nn.Module)
    assert model.num_classes == 4
    model.reset_classifier(0)
    assert relative(model(x), features) < 1e-5
    bare = vision.create_model(name, num_classes=0)
    assert bare(x).shape == features.shape
    if (state := unpooled(model, x)) is not None:
        assert state.dim() > 2
        assert state.isfinite().all()


def unpooled(model: Backbone, x: Tensor) -> Tensor | None:
    """What a model gives without pooling; None for one that always pools."""
    try:
        model.reset_classifier(0, "")
    except ConfigError:
        return None
    return model(x)


@every
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    # in float64: what is computed again without a checkpoint is kept under one, and rounded otherwise
    model = tiny(name, drop_path_rate=0.0, drop_rate=0.0).double()
    for module in model.modules():  # batch statistics would be taken twice
        module.momentum = 0.0 if isinstance(module, nn.BatchNorm2d) else getattr(module, "momentum", None)
    x = image(model).double()
    plain = gradients(model, x)
    model.set_grad_checkpointing()
    again = gradients(model, x)
    floor = 1e-3 * max(float(one.norm()) for one in plain.values())
    assert all(relative(again[key], plain[key], floor) < 1e-5 for key in plain)


@every
@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing_keeps_less(name: str, training: bool) -> None:
    """In evaluation mode it did nothing, where timm's models keep less as well."""
    model = tiny(name).train(training)
    x = image(model)
    plain = kept_for_gradients(model, x)
    model.set_grad_checkpointing()
    assert kept_for_gradients(model, x) < 0.8 * plain


def kept_for_gradients(model: Backbone, x: Tensor) -> int:
    """Bytes that a forward pass keeps, parameters included."""
    kept: dict[int, Tensor] = {}

    def keep(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        logits = model(x)
    assert logits.requires_grad
    return sum(one.untyped_storage().nbytes() for one in kept.values())


def gradients(model: Backbone, x: Tensor) -> dict[str, Tensor]:
    """Gradients of a training step, by name."""
    copied = copy.deepcopy(model).train()
    copied(x).square().sum().backward()
    return {key: one.grad for key, one in copied.named_parameters() if one.grad is not None}


@every
def test_channels_last(name: str) -> None:
    model = tiny(name)
    x = image(model)
    wanted = model(x)
    model = model.to(memory_format=torch.channels_last)
    assert relative(model(x.to(memory_format=torch.channels_last)), wanted) < 1e-5


@every
def test_bfloat16_autocast(name: str) -> None:
    model = tiny(name)
    x = image(model)
    wanted = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
        found.float().square().mean().backward()
    assert relative(found, wanted) < 0.1
    assert all(one.grad is None or one.grad.isfinite().all() for one in model.parameters())


@every
def test_bfloat16_weights(name: str) -> None:
    model = tiny(name)
    x = image(model)
    wanted = model(x)
    found = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert relative(found, wanted) < 0.15


@every
def test_one_image_gives_gradients(name: str) -> None:
    model = tiny(name, drop_path_rate=0.0).double()  # rounding would take some inputs of a ReLU past zero
    x = image(model, batch=3).double()
    model(x).sum().backward()
    together = {key: one.grad.clone() for key, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    for one in x.split(1):
        model(one).sum().backward()
    floor = 1e-3 * max(float(one.norm()) for one in together.values())
    apart = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
    assert apart.keys() == together.keys()
    assert all(relative(apart[key], together[key], floor) < 1e-6 for key in together)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow) for name in TINY]
)
def test_export(name: str) -> None:
    model = tiny(name)
    x = image(model)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        assert relative(program.module()(x), model(x)) < 1e-5


@pytest.mark.slow
@every
def test_compile(name: str) -> None:
    torch._dynamo.reset()  # variants share code, whose second size would be traced as symbols
    model = tiny(name)
    x = image(model)
    compiled = torch.compile(model, backend="aot_eager")
    assert relative(compiled(x), model(x)) < 1e-5
    plain = torch.autograd.grad(model(x).sum(), list(model.parameters()), allow_unused=True)
    again = torch.autograd.grad(compiled(x).sum(), list(model.parameters()), allow_unused=True)
    floor = 1e-3 * max(float(one.norm()) for one in plain if one is not None)
    for mine, other in zip(again, plain, strict=True):
        assert (mine is None) == (other is None)
        assert other is None or relative(mine, other, floor) < 1e-4


@every
def test_own_and_official_weights_load(name: str, tmp_path: object) -> None:
    model = tiny(name, num_classes=1000)
    x, wanted = image(model), model(image(model))
    for official in (False, True):
        path = f"{tmp_path}/weights-{official}.safetensors"
        vision.save_weights(model, path, official=official)
        twin = vision.create_model(name, pretrained=path).eval()
        assert torch.equal(twin(x), wanted)
        other = vision.create_model(name, pretrained=path, num_classes=3).eval()
        assert other(x).shape == (2, 3)
        gray = vision.create_model(name, pretrained=path, in_chans=1).eval()
        assert gray(x[:, :1]).isfinite().all()
        pyramid = vision.create_model(name, pretrained=path, features_only=True).eval()
        assert relative(pyramid(x)[-1], model.forward_intermediates(x, intermediates_only=True)[-1]) < 1e-6


@every
def test_state_dict_holds_all_that_matters(name: str) -> None:
    model = tiny(name)
    twin = vision.create_model(name, num_classes=7).eval()
    twin.load_state_dict(model.state_dict())
    x = image(model)
    assert torch.equal(twin(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize("system", SYSTEMS)
def test_checkpoint_of_another_variant_names_keys(system: str) -> None:
    sizes = {name: one.parameters for name, one in card(system).variants.items() if one.parameters}
    smallest, *others = sorted(sizes, key=sizes.__getitem__)
    others = [name for name in others if sizes[name] > 1.1 * sizes[smallest]]  # not only for larger images
    with torch.device("meta"):
        model = vision.create_model(smallest)
        state = vision.official_state(vision.create_model(others[0]) if others else model)
    if not others:
        state.popitem()
    with pytest.raises(RunError, match=r"keys (missing|left over|of another shape)"):
        vision.load_weights(model, state)


@pytest.mark.parametrize("name", [one for one in FIRST.values() if not one.startswith("biformer")])
def test_gradients_without_data(name: str) -> None:
    """On the meta device, on which the memory of a training step can be told beforehand."""
    with torch.device("meta"):
        model = vision.create_model(name, drop_path_rate=0.0)
        x = torch.zeros(2, 3, *model.img_size)
    model(x).sum().backward()
    assert not [key for key, one in model.named_parameters() if one.grad is None]
    with pytest.raises(DataError, match=r"torch.float64, but the weights are torch.float32"):
        model(x.double())


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_variants_are_whole(name: str) -> None:
    """Logits, pyramid, configuration and a gradient for every parameter, without data where there is none."""
    device = "cpu" if name.startswith("biformer") else "meta"  # routing looks at the data
    with torch.device(device):
        model = vision.create_model(name, drop_path_rate=0.0)
        x = torch.zeros(2, 3, *model.img_size)
    maps = model.forward_intermediates(x, intermediates_only=True)
    for made, info in zip(maps, model.feature_info, strict=True):
        assert made.shape[:2] == (2, info["num_chs"])
        assert all(
            abs(side * info["reduction"] - whole) < info["reduction"]
            for side, whole in zip(made.shape[2:], model.img_size, strict=True)
        )
    state = model.state_dict()
    cfg = model.default_cfg
    assert cfg["input_size"] == (3, *model.img_size)
    if not cfg["fixed_input_size"]:  # timm asks models for maps of 96 pixels otherwise
        assert model.smallest <= min(cfg.get("min_input_size", (3, 96, 96))[1:])
    for part in model.classifier.split(","):
        assert state[f"{part}.weight"].shape[0] == cfg["num_classes"] == model.num_classes
    logits = model(x)
    assert logits.shape == (2, model.num_classes)
    logits.sum().backward()
    assert not [key for key, one in model.named_parameters() if one.grad is None]
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)


@every
def test_optimiser_helpers_of_timm(name: str) -> None:
    model = vision.create_model(name)
    known = {key for key, _ in model.named_parameters()}
    assert model.no_weight_decay() <= known
    groups = param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(one["params"]) for one in groups) == len(known)
    scales = {one["lr_scale"] for one in groups}
    assert len(scales) >= 1 + len(model.stages), "the layers of a model must be told apart"
    stem, stages = model.group_matcher()["stem"], model.group_matcher(coarse=True)["blocks"]
    assert any(re.match(stem, key) for key in known)
    assert any(re.match(stages, key) for key in known)


@pytest.mark.parametrize("name", TINY + PUBLISHED)
def test_registered_in_timm(name: str) -> None:
    assert timm.is_model(f"graphrec_{name}")
    assert f"graphrec_{name}" in timm.list_models("graphrec_*")
    assert (
        get_pretrained_cfg(f"graphrec_{name}").input_size[1] == vision.family(name).card.variants[name].size
    )


@every
def test_made_by_timm(name: str) -> None:
    model = timm.create_model(f"graphrec_{name}", num_classes=3)
    assert isinstance(model, Backbone)
    assert model(image(model)).shape == (2, 3)
    pyramid = timm.create_model(f"graphrec_{name}", features_only=True, feature_cls="getter")
    assert len(pyramid(image(model))) == len(model.feature_info)
