"""FinalMLP (Mao, Zhu, Su, Cai, Li, Dong: FinalMLP, AAAI 2023, arXiv 2304.00902).

Idea: two MLPs see the embeddings through different feature gates, and a multi-head bilinear layer fuses them.

    g_i = 2 sigmoid(MLP_i(context_i)),  h_i = g_i * x,  o_i = MLP_i'(h_i)                      (eq. 6 to 8)
    logit = b + w_1^T o_1 + w_2^T o_2 + sum_h o_1h^T W_h o_2h                                  (eq. 10, 11)

A gate's context is the embedding (from a table of its own) of some fields, such as the user's for one and the
item's for the other, or one learned vector.

Official code: https://github.com/reczoo/FinalMLP, in the FuxiCTR model zoo (Apache-2.0). With several
labels the fusion has one output per label. The learned context vector starts random: the official zeros
leave every hidden ReLU of its gate at zero, where no gradient passes, so only the gate's last bias learns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .embedding import FusedEmbedding
from .layers import MLP, xavier_normal

_CARD = Card(
    name="finalmlp",
    task="ctr",
    title="FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction (AAAI 2023)",
    paper="https://arxiv.org/abs/2304.00902",
    code="https://github.com/reczoo/FinalMLP",
    licence="Apache-2.0",
    published={"MovieLens-1M AUC (FCN's fields)": 0.9052, "Criteo AUC (FCN's split)": 0.8145},
    differs="The learned context vector does not start at zero, where its gate's hidden layer cannot learn.",
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_finalmlp"},
)


class ContextGate(nn.Module):
    """Feature gate ``2 sigmoid(MLP(context))`` of width D.

    Args:
        spec: All fields.
        context: Names of the fields of the context; none for a learned vector.
        width: Gate width D.
        dim: Embedding width of the context.
        std: Standard deviation of the context embeddings' initialisation.
        hidden: Hidden widths of the gate's MLP.

    Raises:
        ConfigError: A context field does not exist.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        context: Sequence[str],
        width: int,
        dim: int,
        std: float,
        hidden: Sequence[int],
    ) -> None:
        super().__init__()
        names = [f.name for f in spec.fields]
        for name in context:
            if name not in names:
                raise ConfigError(f"context: there is no field {name!r}; the table has {', '.join(names)}")
        fields = tuple(f for f in spec.fields if f.name in context)
        self._columns = [
            [i for i, f in enumerate(group) if f in fields]
            for group in (spec.categorical, spec.numeric, spec.lists)
        ]
        self.embedding = self.constant = None
        if fields:
            self.embedding = FusedEmbedding(dataclasses.replace(spec, fields=fields), dim, init_std=std)
        else:
            self.constant = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.mlp = MLP(dim * max(1, len(fields)), hidden, out=width)

    def forward(self, features: Features) -> Tensor:
        """(B, D), or (1, D) from a learned vector."""
        if self.embedding is None:
            return 2 * torch.sigmoid(self.mlp(self.constant))
        categorical, numeric, lists = self._columns
        chosen = Features(
            features.categorical[:, categorical],
            features.numeric[:, numeric],
            tuple(features.lists[i] for i in lists),
        )
        return 2 * torch.sigmoid(self.mlp(self.embedding.flat(chosen)))


class BilinearFusion(nn.Module):
    """Multi-head bilinear fusion of two streams.

    Args:
        left: Width of the first stream.
        right: Width of the second stream.
        out: Outputs T.
        heads: Heads, a divisor of both widths.

    Raises:
        ConfigError: The heads do not divide a width.
    """

    def __init__(self, left: int, right: int, out: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or left % heads or right % heads:
            raise ConfigError(f"num_heads: {heads} does not divide the MLPs' last widths {left} and {right}")
        self.heads, self.out = heads, out
        self.left = nn.Linear(left, out)
        self.right = nn.Linear(right, out, bias=False)
        self.weight = nn.Parameter(torch.empty(heads, left // heads, out * (right // heads)))
        std = (2.0 / (self.weight.numel() // out + out)) ** 0.5  # Glorot of the (inputs, outputs) matrix
        nn.init.normal_(self.weight, std=std)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, left) and (B, right) to (B, T)."""
        rows = left.shape[0]
        heads_left = left.view(rows, self.heads, -1).transpose(0, 1)
        projected = torch.bmm(heads_left, self.weight).view(self.heads, rows, self.out, -1)
        heads_right = right.view(rows, self.heads, 1, -1).transpose(0, 1)  # [h, B, 1, right / h]
        return self.left(left) + self.right(right) + (projected * heads_right).sum((0, 3))


@register_model(_CARD)
class FinalMLP(CTRModel):
    """Two MLP streams with feature gates and bilinear fusion.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        hidden_units1: Widths of the first MLP.
        hidden_units2: Widths of the second MLP.
        dropout1: Dropout rate of the first MLP.
        dropout2: Dropout rate of the second MLP.
        activation: See `graphrec.ctr.layers.activation`.
        batch_norm: Batch normalisation in both MLPs.
        gates: Use the feature gates.
        gate_hidden_units: Hidden widths of the gates.
        context1: Fields of the first gate's context; none for a learned vector.
        context2: Fields of the second gate's context.
        num_heads: Heads of the fusion.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        hidden_units1: tuple[int, ...] = (400, 400),
        hidden_units2: tuple[int, ...] = (400, 400),
        dropout1: float = 0.0,
        dropout2: float = 0.0,
        activation: str = "relu",
        batch_norm: bool = False,
        gates: bool = True,
        gate_hidden_units: tuple[int, ...] = (64,),
        context1: tuple[str, ...] = (),
        context2: tuple[str, ...] = (),
        num_heads: int = 1,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        width = self.flat_dim
        common: dict[str, Any] = {"activation_name": activation, "batch_norm": batch_norm}
        self.mlp1 = MLP(width, hidden_units1, dropout=dropout1, **common)
        self.mlp2 = MLP(width, hidden_units2, dropout=dropout2, **common)
        gate = (width, embedding_dim, embedding_std, gate_hidden_units)
        self.gate1 = ContextGate(spec, context1, *gate) if gates else None
        self.gate2 = ContextGate(spec, context2, *gate) if gates else None
        self.fusion = BilinearFusion(self.mlp1.out_features, self.mlp2.out_features, self.n_labels, num_heads)
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        x = self.embedding(features).flatten(1)
        first = x if self.gate1 is None else x * self.gate1(features)
        second = x if self.gate2 is None else x * self.gate2(features)
        return self.fusion(self.mlp1(first), self.mlp2(second))
