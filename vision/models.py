"""Names to models: families and their variants, `create_model`, and timm's registry.

Each variant is registered in timm as `graphrec_<name>`, a prefix that shadows none of timm's own names.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg
from torch import nn

from graphrec.errors import ConfigError
from graphrec.registry import Card, Variant, register_model

from .backbone import Backbone
from .options import POOLING, check_options, check_stages, complaints_of_timm, complaints_of_values
from .timm_entries import PREFIX, add_entry
from .weights import load_weights


@dataclass(frozen=True)
class Family:
    """One published system: its card, with the variants, and its class."""

    card: Card
    model: type[Backbone]


_families: dict[str, Family] = {}
_family_of: dict[str, str] = {}


def register_backbone(model: type[Backbone], card: Card, variants: Mapping[str, Variant]) -> None:
    """Make a system known, and its variants by name, here and in timm.

    Args:
        model: The class; its keyword-only arguments are the options.
        card: What is published and verified.
        variants: Name -> variant; at least one without published parameters, small enough for tests.
    """
    card = replace(card, variants=dict(variants))
    register_model(card)(model)
    _families[card.name] = Family(card, model)
    for name, variant in variants.items():
        if name in _family_of:
            raise ValueError(f"variant {name!r} is registered twice")
        _family_of[name] = card.name
        add_entry(name, _default_cfg(model, card, variant), _build)


def _default_cfg(model: type[Backbone], card: Card, variant: Variant) -> dict[str, Any]:
    """What timm calls the pretrained configuration."""
    cfg = {
        "url": variant.weights,
        "num_classes": variant.classes,
        "input_size": (3, variant.size, variant.size),
        "fixed_input_size": model.fixed_size,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": _one_or_all(model.first_conv),
        "classifier": _one_or_all(model.classifier),
        "license": card.licence.lower() or None,
        "paper_name": card.title,
        "paper_ids": card.paper,
        "origin_url": card.code or None,
    }
    return cfg | dict(variant.cfg)


def _one_or_all(names: str) -> str | tuple[str, ...]:
    parts = tuple(names.split(","))
    return parts[0] if len(parts) == 1 else parts


def list_models(pattern: str = "*", task: str | None = None, *, tests: bool = False) -> list[str]:
    """Names of variants that match a shell pattern, sorted; ``task`` narrows them to a card's task.

    Args:
        pattern: E.g. ``"swin*"``.
        task: ``"vision"`` for backbones.
        tests: List the tiny variants made for tests instead of the published ones.
    """
    return sorted(
        name
        for name, system in _family_of.items()
        if fnmatch.fnmatch(name, pattern)
        and task in (None, _families[system].card.task)
        and _families[system].card.variants[name].published != tests
    )


def family(name: str) -> Family:
    """The family of a system, or of a variant.

    Raises:
        ConfigError: The name is unknown; the message lists the nearest names.
    """
    if not isinstance(name, str):
        raise ConfigError(f"model: {name!r} is no name; graphrec.vision.list_models() lists all")
    plain = name.removeprefix(PREFIX)
    system = plain if plain in _families else _family_of.get(plain)
    if system is None:
        near = difflib.get_close_matches(plain, [*_family_of, *_families], n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "graphrec.vision.list_models() lists all"
        raise ConfigError(f"model: there is no {name!r}; {hint}")
    return _families[system]


def create_model(
    name: str,
    pretrained: bool | str | os.PathLike[str] = False,
    *,
    num_classes: int | None = None,
    features_only: bool = False,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a variant by name, optionally with official weights.

    Args:
        name: One of :func:`list_models`.
        pretrained: A path, URL or hub repository of an official checkpoint; True is the published one.
        num_classes: Classes of the head; another number than the checkpoint's leaves a fresh classifier.
        features_only: Return a model that gives the feature maps (B, C, H, W) of its stages; ``out_indices``
            picks some.
        img_size: Images of another size than the variant's.
        options: Keyword arguments of the system's class, over those of the variant.

    Raises:
        ConfigError: The name or an option is unknown, or no weights are published.
        RunError: The checkpoint cannot be read or does not fit.
    """
    found = family(name)
    plain = name.removeprefix(PREFIX)
    if plain in found.card.variants:
        given = {"num_classes": num_classes, "img_size": img_size}
        options |= {key: value for key, value in given.items() if value is not None}
        return _build(plain, pretrained=pretrained, features_only=features_only, **options)
    raise ConfigError(f"model: {name!r} is a system; its variants are {', '.join(found.card.variants)}")


def _build(
    name: str,
    pretrained: bool | str | os.PathLike[str] = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    cache_dir: str | None = None,
    features_only: bool = False,
    out_indices: tuple[int, ...] | None = None,
    feature_cls: str = "getter",
    **options: Any,
) -> nn.Module:
    """Make a variant through timm's builder, which attaches configurations and wraps feature extractors."""
    found = family(name)
    variant = found.card.variants[name]
    check_options(name, found.model, options)
    if feature_cls != "getter":
        raise ConfigError(f"feature_cls: {feature_cls!r} is not 'getter', by which all maps are taken")
    overlay = dict(pretrained_cfg_overlay or {})
    source = _source(name, variant, pretrained, overlay)
    if "img_size" in options:
        overlay["input_size"] = (options.get("in_chans", 3), *to_2tuple(options["img_size"]))
    own, options = options, {"img_size": variant.size, **variant.options, **options}
    check_stages(found.model, options)

    def construct(**given: Any) -> Backbone:
        pooling = complaints_of_timm("Invalid pool type", "global_pool", POOLING, given)
        with pooling, complaints_of_values(name, own):
            model = found.model(**given)
        if source is not None:
            load_weights(model, source, fresh_head=model.num_classes != variant.classes)
        return model

    asked = {"out_indices": out_indices}
    with complaints_of_timm("feature index", "out_indices", "is not among the model's feature maps", asked):
        model = build_model_with_cfg(
            construct,
            PREFIX + name,
            False,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=overlay,
            feature_cfg={"feature_cls": feature_cls, **asked},  # None takes all stages
            features_only=features_only,
            cache_dir=cache_dir,
            **options,
        )
    if isinstance(model, Backbone) and model.output_fmt != "NLC":  # tokens have no height and width
        step, cfg = model.feature_info[-1]["reduction"], cast(dict[str, Any], model.pretrained_cfg)
        cfg["pool_size"] = tuple(-(-side // step) for side in model.img_size)
    return model


def _source(
    name: str, variant: Variant, pretrained: bool | str | os.PathLike[str], overlay: Mapping[str, Any]
) -> str | os.PathLike[str] | None:
    """Where the weights come from, None for random ones."""
    if pretrained is None or pretrained is False:
        return None
    if pretrained is not True:
        if isinstance(pretrained, str | os.PathLike) and str(pretrained).strip():
            return pretrained
        told = repr(pretrained) if isinstance(pretrained, str) else f"a {type(pretrained).__name__}"
        raise ConfigError(
            f"pretrained: {told} is not allowed; it is True, False, a path, a URL or a hub repository"
        )
    found = next((overlay[key] for key in ("file", "url", "hf_hub_id") if overlay.get(key)), variant.weights)
    if not found:
        raise ConfigError(
            f"pretrained: no weights of {name} are published; give a path, URL or hub repository"
        )
    return found
