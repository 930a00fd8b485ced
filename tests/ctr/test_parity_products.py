"""Models that multiply features equal references that are built from the layers of FuxiCTR 2.3."""

from __future__ import annotations

import pytest
import torch
from parity_links import WIDTH, Deep, check, embedding_links, fuxi, linear_links, make, mlp_links
from torch import Tensor, nn

pytestmark = pytest.mark.parity


class Gated(nn.Module):
    """The structures of GDCN: cross layers whose products are gated by sigmoids."""

    def __init__(self, structure: str) -> None:
        super().__init__()
        self.structure = structure
        self.cross = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.mlp = fuxi.MLP_Block(WIDTH, [8, 4]) if structure != "cross" else None
        self.head = nn.Linear({"parallel": WIDTH + 4, "stacked": 4, "cross": WIDTH}[structure], 1)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for cross, gate in zip(self.cross, self.gates, strict=True):
            crossed = crossed + x * cross(crossed) * torch.sigmoid(gate(crossed))
        if self.structure == "parallel":
            crossed = torch.cat([crossed, self.mlp(x)], dim=-1)  # type: ignore[misc]
        elif self.structure == "stacked":
            crossed = self.mlp(crossed)  # type: ignore[misc]
        return self.head(crossed)


@pytest.mark.parametrize("structure", ["parallel", "stacked", "cross"])
def test_gdcn(structure: str) -> None:
    model = make("gdcn", structure=structure, num_layers=2, hidden_units=(8, 4))
    network = Gated(structure)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding), *linear_links(model.head, network.head)]
    for ours, theirs in ((model.cross.layers, network.cross), (model.cross.gates, network.gates)):
        for mine, other in zip(ours, theirs, strict=True):
            links += linear_links(mine, other)
    if network.mlp is not None:
        links += mlp_links(model.mlp, network.mlp)
    check(model, reference, links)
