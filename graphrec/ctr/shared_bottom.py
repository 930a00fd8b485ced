"""Shared-Bottom (Caruana: Multitask Learning, Machine Learning 28, 1997; as the baseline of MMoE, KDD 2018).

Idea: all tasks share one MLP and have a small tower each.

    logit_t = tower_t(MLP([e_1 || ... || e_F]))

Official code: none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .layers import MLP, xavier_normal

_CARD = Card(
    name="shared_bottom",
    task="ctr",
    title="Shared-Bottom multi-task model (Caruana 1997)",
    paper="https://doi.org/10.1023/A:1007379606734",
    published={"KuaiRand-Pure click AUC": 0.7644, "KuaiRand-Pure like AUC": 0.7924},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_shared_bottom"},
)


@register_model(_CARD)
class SharedBottom(CTRModel):
    """One MLP for all labels, one tower per label.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        bottom_units: Widths of the shared MLP.
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
        bottom_units: tuple[int, ...] = (256, 128),
        tower_units: tuple[int, ...] = (64,),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        label_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(
            spec, embedding_dim=embedding_dim, embedding_std=embedding_std, label_weights=label_weights
        )
        common: dict[str, Any] = {"activation_name": activation, "dropout": dropout, "batch_norm": batch_norm}
        self.bottom = MLP(self.flat_dim, bottom_units, **common)
        width = self.bottom.out_features
        self.towers = nn.ModuleList(MLP(width, tower_units, out=1, **common) for _ in spec.labels)
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        shared = self.bottom(self.embedding.flat(features))
        return torch.cat([tower(shared) for tower in self.towers], dim=1)
