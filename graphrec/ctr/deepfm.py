"""DeepFM (Guo, Tang, Ye, Li, He: DeepFM, IJCAI 2017, arXiv 1703.04247).

Idea: a factorisation machine and an MLP share the embeddings and add their logits.

    logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j + MLP([v_1 x_1 || ... || v_F x_F])

Official code: none by the authors. With several labels the FM part is that of `graphrec.ctr.fm` and the MLP
has one output per label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .fm import pair_products
from .layers import MLP, FactorPairs, LinearTerms, xavier_normal

_CARD = Card(
    name="deepfm",
    task="ctr",
    title="DeepFM: A Factorization-Machine based Neural Network (IJCAI 2017)",
    paper="https://arxiv.org/abs/1703.04247",
    published={"MovieLens-1M AUC (FCN's fields)": 0.9051, "Criteo AUC (FCN's split)": 0.8143},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_deepfm"},
)


@register_model(_CARD)
class DeepFM(CTRModel):
    """Factorisation machine plus MLP.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' and linear weights' initialisation.
        hidden_units: Widths of the MLP.
        activation: See `graphrec.ctr.layers.activation`.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        hidden_units: tuple[int, ...] = (400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        self.linear = LinearTerms(spec, std=embedding_std)
        self.pairs = FactorPairs(embedding_dim, self.n_labels)
        self.mlp = MLP(
            self.flat_dim,
            hidden_units,
            out=self.n_labels,
            activation_name=activation,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        xavier_normal(self.mlp)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        fields = self.embedding.flat(features)
        return self.linear(features) + self.pairs(fields.vectors) + self.mlp(fields)

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Mean size of each pair's term in the FM part: (F, F)."""
        return pair_products(self.embedding(features))
