"""Embeddings and an MLP (the deep part of Cheng et al.: Wide & Deep, DLRS 2016, arXiv 1606.07792).

Idea: concatenate the field vectors and let an MLP find the interactions.

    logit(x) = MLP([e_1 || ... || e_F])

Official code: none for the deep part alone.
"""

from __future__ import annotations

from torch import Tensor

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .layers import MLP, xavier_normal

_CARD = Card(
    name="dnn",
    task="ctr",
    title="DNN: embeddings and an MLP (the deep part of Wide & Deep)",
    paper="https://arxiv.org/abs/1606.07792",
    published={"MovieLens-1M AUC (FCN's fields)": 0.9030, "Criteo AUC (FCN's split)": 0.8140},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_dnn"},
)


@register_model(_CARD)
class DNN(CTRModel):
    """Multi-layer perceptron over the concatenated field vectors.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        hidden_units: Widths of the hidden layers.
        activation: See `graphrec.ctr.layers.activation`.
        dropout: Dropout rate after each hidden layer.
        batch_norm: Batch normalisation before each activation.
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
        return self.mlp(self.embedding.flat(features))
