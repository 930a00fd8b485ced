"""Factorisation machines: FM (Rendle, ICDM 2010) and FwFM (Pan et al., WWW 2018, arXiv 1806.03514).

Idea: the weight of a pair of features is the inner product of their vectors, so pairs never seen together
still have one; FwFM scales it by a learned strength of the pair of *fields*.

    FM:    logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j
    FwFM:  logit = w_0 + linear       + sum_{i<j} r_{F(i) F(j)} <v_i, v_j> x_i x_j
    FwFM's linear part: sum_i <v_i, u_{F(i)}> with one vector u per field, or w_i x_i as in FM

Official code: FM, libFM (http://libfm.org, GPL-3); FwFM, none by the authors. With several labels FM weighs
the d terms of the pairs by one vector per label, FwFM has its strengths and vectors per label.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .field_pairs import FieldPairs
from .layers import FactorPairs, LinearTerms, xavier_normal

_FM = Card(
    name="fm",
    task="ctr",
    title="Factorization Machines (ICDM 2010)",
    paper="https://doi.org/10.1109/ICDM.2010.127",
    code="https://github.com/srendle/libfm",
    licence="GPL-3.0",
    published={"MovieLens-1M AUC (AutoInt's fields)": 0.8252, "Criteo AUC (AutoInt's split)": 0.7836},
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_fm"},
)
_FWFM = Card(
    name="fwfm",
    task="ctr",
    title="Field-weighted Factorization Machines (WWW 2018)",
    paper="https://arxiv.org/abs/1806.03514",
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_fwfm"},
    training={"learning_rate": 0.01},  # the strengths of pairs must be found before rare ids are memorised
)


def pair_products(vectors: Tensor) -> Tensor:
    """Mean over rows of ``|<v_i, v_j>|``: (B, F, d) to (F, F), with a zero diagonal."""
    products = (vectors @ vectors.transpose(1, 2)).abs().mean(0)
    return products - products.diag().diag()


@register_model(_FM)
class FM(CTRModel):
    """Factorisation machine of order two.

    Args:
        spec: Fields and labels.
        embedding_dim: Factors d.
        embedding_std: Standard deviation of the factors' and weights' initialisation.
    """

    def __init__(self, spec: FeatureSpec, *, embedding_dim: int = 16, embedding_std: float = 1e-2) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        self.linear = LinearTerms(spec, std=embedding_std)
        self.pairs = FactorPairs(embedding_dim, self.n_labels)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.linear(features) + self.pairs(self.embedding(features))

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Mean size of each pair's term: (F, F)."""
        return pair_products(self.embedding(features))


@register_model(_FWFM)
class FwFM(CTRModel):
    """Field-weighted factorisation machine.

    Args:
        spec: Fields and labels.
        embedding_dim: Factors d.
        embedding_std: Standard deviation of the factors' initialisation.
        linear: "field" for one linear vector per field, "feature" for one weight per feature.

    Raises:
        ConfigError: ``linear`` is neither.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-2,
        linear: Literal["field", "feature"] = "field",
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        if linear not in ("field", "feature"):
            raise ConfigError(f"linear: there is no {linear!r}; use 'field' or 'feature'")
        self.pairs = FieldPairs(self.n_fields, self.n_labels)
        self.linear: nn.Module = LinearTerms(spec, std=embedding_std)
        if linear == "field":
            self.linear = nn.Linear(self.flat_dim, self.n_labels)
            xavier_normal(self.linear)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        vectors = self.embedding(features)
        by_field = isinstance(self.linear, nn.Linear)
        return self.pairs(vectors) + self.linear(vectors.flatten(1) if by_field else features)

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Mean size of each pair's term, averaged over labels: (F, F)."""
        strength = self.pairs.matrix().abs().mean(0)
        return pair_products(self.embedding(features)) * (strength + strength.T)
