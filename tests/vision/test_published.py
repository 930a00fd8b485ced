"""Parameters and operations of every published variant, counted on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

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


QUICK = smallest_of_each_system()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_counts(name: str) -> None:
    variant = vision.family(name).card.variants[name]
    with torch.device("meta"):
        model = vision.create_model(name, num_classes=variant.classes).eval()
    parameters = sum(one.numel() for one in model.parameters()) / 1e6
    assert parameters == pytest.approx(variant.parameters, rel=0.01)
    if variant.gflops is None:
        return
    image = torch.empty(1, 3, variant.size, variant.size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    found = counter.get_total_flops() / 2e9
    digits = len(f"{variant.gflops:g}".partition(".")[2])
    assert found == pytest.approx(variant.gflops, rel=0.03, abs=0.5 * 10**-digits)
