"""Logistic regression on one-hot features (Richardson, Dominowska, Ragno: Predicting Clicks, WWW 2007).

Idea: each feature adds its own weight to the log-odds, so there is no interaction; the floor that every
other model has to pass.

    logit(x) = w_0 + sum_i w_i x_i

Official code: none. With several labels every feature has one weight per label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .embedding import LOG_ODDS_PRIOR

_CARD = Card(
    name="lr",
    task="ctr",
    title="Logistic regression (Predicting Clicks, WWW 2007)",
    paper="https://doi.org/10.1145/1242572.1242643",
    published={"MovieLens-1M AUC (AutoInt's fields)": 0.7716, "Criteo AUC (AutoInt's split)": 0.7820},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_lr"},
    training={"embedding_lr": 0.1, "learning_rate": 0.005},  # single weights go further than vectors
)


@register_model(_CARD)
class LR(CTRModel):
    """Logistic regression: the sum of one weight per feature.

    Args:
        spec: Fields and labels.
        embedding_std: Standard deviation of the weights' initialisation.
    """

    def __init__(self, spec: FeatureSpec, *, embedding_std: float = 1e-4) -> None:
        super().__init__(spec, embedding_dim=len(spec.labels), embedding_std=embedding_std)
        self.embedding.prior = LOG_ODDS_PRIOR
        self.bias = nn.Parameter(torch.zeros(len(spec.labels)))

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.embedding(features).sum(1) + self.bias
