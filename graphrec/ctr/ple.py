"""PLE (Tang, Liu, Zhao, Gong: Progressive Layered Extraction, RecSys 2020, doi 10.1145/3383313.3412236).

Idea: experts that all tasks share hurt tasks that disagree, so each task has experts of its own beside the
shared ones; what is shared and what is not is separated progressively, over several extraction levels.

    CGC: logit_k = tower_k(g_k(x)),   g_k(x) = w_k(x) S_k(x),   w_k(x) = softmax(W_k x)
    PLE: logit_k = tower_k(g_kN(x)),  g_kj(x) = w_kj(g_k,j-1(x)) S_kj(x)  at level j, g_k0(x) = x

The rows of S_k are the outputs of the m_k experts of task k and of the m_s shared ones. Experts of task k
read what its gate reads; shared experts read the output of a shared gate, which mixes all experts of the
level before, those of every task and the shared ones. The last level has no shared gate, so one level is
CGC (Customized Gate Control).

Official code: none. FuxiCTR's shared gate mixes the shared experts alone: ``share_all=False``. As in our
MMoE a gate has a bias and may have hidden layers (``gate_units``). A row without a label is left out of that
task's loss, as the paper does with rows outside of a task's sample space; the tasks' weights are constant
(``label_weights``), where the paper multiplies each by a factor per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .experts import Experts, mixture
from .flat_fields import FlatFields
from .layers import MLP, at_least_one, xavier_normal

_CARD = Card(
    name="ple",
    task="ctr",
    title="PLE: Progressive Layered Extraction, a Multi-Task Learning Model (RecSys 2020)",
    paper="https://doi.org/10.1145/3383313.3412236",
    published={"KuaiRand-Pure click AUC": 0.7648, "KuaiRand-Pure like AUC": 0.8621},
    verified={
        "parity with FuxiCTR's layers": "tests/ctr/test_parity_tasks.py::test_ple",
        "the paper's equations, expert by expert": "tests/ctr/test_ple.py::test_paper_equations",
    },
    differs="The tasks' weights in the loss are constant; the paper changes them by a factor per step.",
)


class ExtractionLevel(nn.Module):
    """Experts of each task and shared ones, mixed by a gate per task and by a shared one.

    Args:
        width: Input width of every task and of the shared experts.
        tasks: Tasks T.
        task_experts: Experts m_k of each task.
        shared_experts: Shared experts m_s.
        expert_units: Widths of each expert.
        gate_units: Hidden widths of each gate.
        last: Leave out the shared gate.
        share_all: The shared gate mixes all experts; else the shared ones.
        **options: Of `graphrec.ctr.layers.MLP`.

    Attributes:
        out_features: Width w of the outputs.
    """

    def __init__(
        self,
        width: int,
        tasks: int,
        *,
        task_experts: int,
        shared_experts: int,
        expert_units: tuple[int, ...],
        gate_units: tuple[int, ...],
        last: bool,
        share_all: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        self.share_all = share_all
        self.task_experts = nn.ModuleList(
            Experts(task_experts, width, expert_units, **options) for _ in range(tasks)
        )
        self.shared_experts = Experts(shared_experts, width, expert_units, **options)
        self.out_features = self.shared_experts.out_features
        mixed = task_experts + shared_experts
        self.gates = nn.ModuleList(MLP(width, gate_units, out=mixed, **options) for _ in range(tasks))
        self.shared_gate = None
        if not last:
            mixed = shared_experts + share_all * tasks * task_experts
            self.shared_gate = MLP(width, gate_units, out=mixed, **options)

    def forward(
        self, inputs: Sequence[Tensor | FlatFields], shared: Tensor | FlatFields
    ) -> tuple[list[Tensor], Tensor | None]:
        """Inputs (B, width) of the T tasks and the shared one to (B, w) each, None from the last level."""
        common = self.shared_experts(shared)
        own = [experts(x) for experts, x in zip(self.task_experts, inputs, strict=True)]
        outputs = [
            mixture(gate(x), experts, common)
            for gate, x, experts in zip(self.gates, inputs, own, strict=True)
        ]
        if self.shared_gate is None:
            return outputs, None
        return outputs, mixture(self.shared_gate(shared), *(own if self.share_all else ()), common)


@register_model(_CARD)
class PLE(CTRModel):
    """Levels of experts, shared and of each label, and one tower per label.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        num_levels: Extraction levels N; one is CGC.
        num_task_experts: Experts of each label in each level.
        num_shared_experts: Shared experts in each level.
        expert_units: Widths of each expert.
        gate_units: Hidden widths of each gate.
        tower_units: Hidden widths of each tower.
        share_all: The shared gate mixes the experts of all labels too, as in the paper; FuxiCTR's does not.
        activation: See `graphrec.ctr.layers.activation`.
        dropout: Dropout rate of all MLPs.
        batch_norm: Batch normalisation in all MLPs.
        label_weights: Weight of each label's loss; equal when None.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        num_levels: int = 2,
        num_task_experts: int = 1,
        num_shared_experts: int = 2,
        expert_units: tuple[int, ...] = (256, 128),
        gate_units: tuple[int, ...] = (),
        tower_units: tuple[int, ...] = (64,),
        share_all: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        label_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_std=embedding_std, label_weights=label_weights
        )
        at_least_one(
            num_levels=num_levels, num_task_experts=num_task_experts, num_shared_experts=num_shared_experts
        )
        common: dict[str, Any] = {"activation_name": activation, "dropout": dropout, "batch_norm": batch_norm}
        width, levels = self.flat_dim, []
        for number in range(num_levels):
            level = ExtractionLevel(
                width,
                self.n_labels,
                task_experts=num_task_experts,
                shared_experts=num_shared_experts,
                expert_units=expert_units,
                gate_units=gate_units,
                last=number == num_levels - 1,
                share_all=share_all,
                **common,
            )
            levels.append(level)
            width = level.out_features
        self.levels = nn.ModuleList(levels)
        self.towers = nn.ModuleList(MLP(width, tower_units, out=1, **common) for _ in spec.labels)
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        shared: Tensor | FlatFields = self.embedding.flat(features)
        tasks: Sequence[Tensor | FlatFields] = [shared] * self.n_labels
        for level in self.levels:
            tasks, shared = level(tasks, shared)
        return torch.cat([tower(task) for tower, task in zip(self.towers, tasks, strict=True)], dim=1)
