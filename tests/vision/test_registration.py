"""Names: listing, suggestions, options, and that ours shadow none of timm's."""

from __future__ import annotations

import pytest
import timm

import graphrec
from graphrec import vision
from graphrec.errors import ConfigError
from graphrec.registry import list_models


def test_lists_by_pattern_and_task() -> None:
    assert "swin_tiny_patch4_window7_224" in vision.list_models("swin*", task="vision")
    assert vision.list_models("swin*", task="ctr") == []
    assert vision.list_models("*_test") == []
    assert "swin_test" in vision.list_models("*_test", tests=True)
    assert "swin" in list_models(task="vision")


@pytest.mark.parametrize("typo", ["swin_tiny_patch4_window7_22", "graphrec_swin_tiny_patch4_window7_2244"])
def test_an_unknown_name_suggests_the_nearest(typo: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*swin_tiny_patch4_window7_224"):
        vision.create_model(typo)


def test_an_unlike_name_points_to_the_list() -> None:
    with pytest.raises(ConfigError, match=r"list_models\(\)"):
        vision.create_model("0")


def test_a_system_names_its_variants() -> None:
    with pytest.raises(ConfigError, match=r"is a system; its variants are convnext_tiny, "):
        vision.create_model("convnext")


def test_an_unknown_option_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"^windows: swin_test has no such option; it takes .*window_size"):
        vision.create_model("swin_test", windows=3)


def test_options_override_the_variant() -> None:
    assert vision.create_model("swin_test", embed_dim=16).num_features == 32


def test_a_system_is_made_from_its_options() -> None:
    assert isinstance(
        graphrec.create_model("swin", embed_dim=8, depths=(1,), num_heads=(1,)), vision.Backbone
    )


def test_unpublished_weights() -> None:
    with pytest.raises(ConfigError, match="no weights of swin_test are published"):
        vision.create_model("swin_test", pretrained=True)


def test_names_of_timm_stay_timms() -> None:
    for name in vision.list_models():
        if timm.is_model(name):
            assert timm.models.model_entrypoint(name).__module__.startswith("timm.")


def test_a_name_is_registered_once() -> None:
    found = vision.family("swin")
    with pytest.raises(ValueError, match="registered twice"):
        vision.register_backbone(found.model, found.card, {})


def test_graphrec_finds_vision_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(graphrec, "vision")
    assert graphrec.vision is vision
