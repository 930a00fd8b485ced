"""Levels of experts equal references that are built from FuxiCTR's layers; see `parity_links`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity_links import WIDTH, Deep, Link, check, embedding_links, fuxi, make, mlp_links
from torch import Tensor, nn

pytestmark = pytest.mark.parity
TASKS, OWN, SHARED = 2, 2, 3


def perceptron(width: int, hidden: list[int], out: int | None = None) -> nn.Module:
    return fuxi.MLP_Block(width, hidden, output_dim=out, batch_norm=True)


class Level(nn.Module):
    """Customized gate control; the shared gate mixes all experts (the paper) or the shared ones (FuxiCTR)."""

    def __init__(self, width: int, gates: list[int], shared_gate: int) -> None:
        super().__init__()
        self.own = nn.ModuleList(perceptron(width, [8, 4]) for _ in range(TASKS * OWN))
        self.shared = nn.ModuleList(perceptron(width, [8, 4]) for _ in range(SHARED))
        sizes = [OWN + SHARED] * TASKS + [shared_gate] * (shared_gate > 0)
        self.gates = nn.ModuleList(perceptron(width, gates, out=size) for size in sizes)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        own = [expert(inputs[i // OWN]) for i, expert in enumerate(self.own)]
        shared = [expert(inputs[-1]) for expert in self.shared]
        pools = [own[t * OWN : (t + 1) * OWN] + shared for t in range(TASKS)] + [own + shared]
        found = []
        for gate, x, pool in zip(self.gates, inputs, pools, strict=False):
            weights = gate(x).softmax(-1)
            chosen = torch.stack(pool[-weights.shape[1] :], dim=1)
            found.append((weights[..., None] * chosen).sum(1))
        return found


class Extraction(nn.Module):
    """Levels, then a tower per task."""

    def __init__(self, levels: int, gates: list[int], share_all: bool) -> None:
        super().__init__()
        size = SHARED + share_all * TASKS * OWN
        self.levels = nn.ModuleList(
            Level(4 if i else WIDTH, gates, size if i < levels - 1 else 0) for i in range(levels)
        )
        self.towers = nn.ModuleList(perceptron(4, [3], out=1) for _ in range(TASKS))

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x] * (TASKS + 1)
        for level in self.levels:
            inputs = level(inputs)
        return torch.cat([tower(found) for tower, found in zip(self.towers, inputs, strict=True)], dim=1)


def level_links(ours: Any, theirs: Any) -> list[Link]:
    experts = [*(one for group in ours.task_experts for one in group), *ours.shared_experts]
    gates = [*ours.gates, *([] if ours.shared_gate is None else [ours.shared_gate])]
    pairs = zip([*experts, *gates], [*theirs.own, *theirs.shared, *theirs.gates], strict=True)
    return [link for mine, other in pairs for link in mlp_links(mine, other)]


@pytest.mark.parametrize("gates", [(), (5,)])
@pytest.mark.parametrize(("levels", "share_all"), [(1, True), (2, True), (3, True), (2, False)])
def test_ple(levels: int, share_all: bool, gates: tuple[int, ...]) -> None:
    model: Any = make(
        "ple",
        TASKS,
        num_levels=levels,
        num_task_experts=OWN,
        num_shared_experts=SHARED,
        expert_units=(8, 4),
        gate_units=gates,
        tower_units=(3,),
        share_all=share_all,
        batch_norm=True,
    )
    network = Extraction(levels, list(gates), share_all)
    reference = Deep(model.spec, network)
    links = [*embedding_links(model.embedding, reference.embedding)]
    for ours, theirs in zip(model.levels, network.levels, strict=True):
        links += level_links(ours, theirs)
    for ours, theirs in zip(model.towers, network.towers, strict=True):
        links += mlp_links(ours, theirs)
    check(model, reference, links)
