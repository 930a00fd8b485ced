"""TransNeXt against recordings of the official code (its native attention, which needs no CUDA)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from vision_tools import assert_equals_recording, assert_official_keys, relative

from graphrec import vision
from graphrec.vision.layers.aggregated_attention import CosineAttention, axis_distances

AGGREGATED = {"poolings": (16, 8, 4, 2)}


def test_equals_official() -> None:
    assert_equals_recording(vision.create_model("transnext_test", num_classes=11), "transnext")


def test_other_size_equals_official() -> None:
    """The same model on larger images: distances stay scaled to the size of pretraining."""
    assert_equals_recording(vision.create_model("transnext_test", num_classes=11), "transnext_96")


def test_aggregated_attention_in_every_stage_equals_official() -> None:
    model = vision.create_model("transnext_test", num_classes=11, **AGGREGATED)
    assert_equals_recording(model, "transnext_aaaa")


@pytest.mark.parametrize("options", [{}, AGGREGATED])
def test_official_keys(options: dict[str, object]) -> None:
    assert_official_keys(vision.create_model("transnext_test", **options))


@pytest.mark.parametrize(("queries", "keys"), [(56, 7), (14, 14), (9, 1), (19, 4), (7, 3)])
def test_distances_to_pooled_positions(queries: int, keys: int) -> None:
    """Also where pooling takes unequal pieces; a regular grid has no distance twice."""
    values, number = axis_distances(queries, keys, 7, torch.device("cpu"))
    place = torch.arange(queries, dtype=torch.float32)
    apart = (place[:, None] - F.adaptive_avg_pool1d(place[None], keys)) / 6 * 8
    assert relative(values[number], apart.sign() * (apart.abs() + 1).log2() / 3) < 1e-6
    if queries % keys == 0:
        assert len(values) == len(apart.unique())


def test_what_should_not_decay() -> None:
    names = vision.create_model("transnext_test").no_weight_decay()
    parts = {"temperature", "query_embedding", "relative_pos_bias_local", "cpb_fc1.weight", "cpb_fc2.bias"}
    assert all(any(name.endswith(part) for name in names) for part in parts)


def test_biases_are_made_once_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = vision.create_model("transnext_test").eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first = model(image)
        monkeypatch.setattr("graphrec.vision.layers.aggregated_attention.mlp_in_pieces", None)
        assert torch.equal(model(image), first)


def test_biases_follow_weights_and_sizes() -> None:
    model = vision.create_model("transnext_test").eval()
    images = [torch.randn(1, 3, side, side) for side in (64, 96, 64)]
    with torch.no_grad():
        for image in images:
            model(image)
    layer = next(one for one in model.modules() if isinstance(one, CosineAttention))
    for change in (
        lambda: layer.cpb_fc1.weight.data.mul_(3),
        lambda: layer.cpb_fc2.bias.data.add_(1),
        lambda: None,
    ):
        change()  # past autograd's count of changes
        for image in images:
            with_gradients = model(image).detach()
            with torch.no_grad():
                torch.testing.assert_close(model(image), with_gradients)
    with torch.inference_mode():
        model(images[0])
    model.double()
    with torch.no_grad():
        assert model(images[0].double()).dtype == torch.float64
