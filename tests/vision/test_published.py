"""Parameters and operations of every published variant."""

from __future__ import annotations

import pytest
import torch

from graphrec import vision

NAMES = vision.list_models()


def smallest_of_each_system() -> set[str]:
    """The published variant with the fewest parameters of each system."""
    found: dict[str, str] = {}
    for name in NAMES:
        card = vision.family(name).card
        best = found.setdefault(card.name, name)
        if card.variants[name].parameters < card.variants[best].parameters:
            found[card.name] = name
    return set(found.values())


UNPUBLISHED = ("davit_huge", "davit_giant")
"""Variants of which no operations are published."""
BY_DATA = ("biformer",)
"""Systems that choose by the data, which the meta device lacks."""
QUICK = smallest_of_each_system()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_counts(name: str) -> None:
    variant = vision.family(name).card.variants[name]
    with torch.device("cpu" if name.startswith(BY_DATA) else "meta"):
        model = vision.create_model(name, num_classes=variant.classes).eval()
    parameters = sum(one.numel() for one in model.parameters()) / 1e6
    assert parameters == pytest.approx(variant.parameters, rel=0.01)
    wanted = variant.counted or variant.gflops
    if wanted is None:
        assert name in UNPUBLISHED
        return
    digits = len(f"{wanted:g}".partition(".")[2])
    found = vision.count_operations(model)
    assert found == pytest.approx(wanted, rel=0.03, abs=0.5 * 10**-digits)


@pytest.mark.parametrize("name", NAMES)
def test_a_count_that_differs_says_why(name: str) -> None:
    variant = vision.family(name).card.variants[name]
    if variant.counted is not None:
        assert variant.note
        assert abs(variant.counted / variant.gflops - 1) > 0.03


def test_attention_counts_visible_pairs() -> None:
    """By hand: convolutions and linear layers as torch counts them, and two products per visible pair."""
    with torch.device("meta"):
        model = vision.create_model("dinat_test", num_classes=0).eval()
    small, large = (vision.count_operations(model, size) for size in (32, 64))
    assert large == pytest.approx(4 * small)  # neighborhoods grow with the map, all pairs would grow faster
    with torch.device("meta"):
        wide = vision.create_model("dinat_test", num_classes=0, kernel_size=5, dilations=(1, 1)).eval()
    pairs = [2 * 16 * 16 * 8, 2 * 8 * 8 * 16]  # blocks, positions and channels of both stages
    assert vision.count_operations(wide, 64) - large == pytest.approx(2 * sum(pairs) * (25 - 9) / 1e9)
