"""MMoE (Ma, Zhao, Yi, Chen, Hong, Chi: Modeling Task Relationships, KDD 2018, doi 10.1145/3219819.3220007).

Idea: tasks share a set of expert MLPs, and each task mixes them by a softmax gate of its own.

    logit_t = tower_t(sum_k g_t(x)_k f_k(x)),   g_t(x) = softmax(W_t x)                         (eq. 6, 7)

Official code: none by the authors. The gate may have hidden layers (``gate_units``), as in FuxiCTR; the
paper's has none, which is the default.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .experts import Experts, mixture
from .layers import MLP, at_least_one, xavier_normal

_CARD = Card(
    name="mmoe",
    task="ctr",
    title="MMoE: Modeling Task Relationships with Multi-gate Mixture-of-Experts (KDD 2018)",
    paper="https://doi.org/10.1145/3219819.3220007",
    published={"KuaiRand-Pure click AUC": 0.7639, "KuaiRand-Pure like AUC": 0.8047},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_mmoe"},
)


@register_model(_CARD)
class MMoE(CTRModel):
    """Experts shared by all labels, one gate and tower per label.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        num_experts: Experts K.
        expert_units: Widths of each expert.
        gate_units: Hidden widths of each gate.
        tower_units: Hidden widths of each tower.
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
        num_experts: int = 4,
        expert_units: tuple[int, ...] = (256, 128),
        gate_units: tuple[int, ...] = (),
        tower_units: tuple[int, ...] = (64,),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        label_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_std=embedding_std, label_weights=label_weights
        )
        at_least_one(num_experts=num_experts)
        width, labels = self.flat_dim, spec.labels
        common: dict[str, Any] = {"activation_name": activation, "dropout": dropout, "batch_norm": batch_norm}
        self.experts = Experts(num_experts, width, expert_units, **common)
        self.gates = nn.ModuleList(MLP(width, gate_units, out=num_experts, **common) for _ in labels)
        width = self.experts.out_features
        self.towers = nn.ModuleList(MLP(width, tower_units, out=1, **common) for _ in labels)
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        x = self.embedding.flat(features)
        experts = self.experts(x)
        pairs = zip(self.gates, self.towers, strict=True)
        return torch.cat([tower(mixture(gate(x), experts)) for gate, tower in pairs], dim=1)
