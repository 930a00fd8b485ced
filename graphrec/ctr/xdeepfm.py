"""xDeepFM (Lian, Zhou, Zhang, Chen, Xie, Sun: xDeepFM, KDD 2018, arXiv 1803.05170).

Idea: interactions of vectors rather than of single numbers. Layer k of the compressed interaction network
(CIN) multiplies each of the H_{k-1} vectors before it with each field's, element by element, and compresses
the products to H_k vectors. Their sums, first-order terms and an MLP give the logit.

    X^0 = (e_1, ..., e_F),  X^k_h = sum_ij W^k_hij (X^{k-1}_i * X^0_j)                        (eq. 6)
    p^k_h = sum_d X^k_hd                                                                      (eq. 7)
    logit = b + sum_i w_i x_i + MLP([e_1 || ... || e_F]) + w^T [p^1 || ... || p^K]           (eq. 15)

A layer's (B, H, F, d) products are never in memory together (`compressed`). Vectors that are only summed, as
those of the last layer, need none: p_h = sum_ij W_hij <X_i, X^0_j>.

Official code: https://github.com/Leavingseason/xDeepFM (no licence stated). There half of the vectors of each
layer but the last go on and only the others are summed (``split=True``); here, as in the paper and FuxiCTR,
all of them do both. FuxiCTR's CIN adds biases (``cin_bias=True``), the paper's does not. With several labels
each has first-order weights and a last layer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .compressed import compressed_products
from .fm import pair_products
from .layers import MLP, LinearTerms, at_least_one, xavier_normal

_CARD = Card(
    name="xdeepfm",
    task="ctr",
    title="xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender Systems (KDD 2018)",
    paper="https://arxiv.org/abs/1803.05170",
    code="https://github.com/Leavingseason/xDeepFM",
    published={
        "Criteo AUC": 0.8052,
        "MovieLens-1M AUC (AutoInt's fields)": 0.8463,
        "Criteo AUC (AutoInt's split)": 0.8070,
    },
    verified={
        "parity with FuxiCTR's layers": "tests/ctr/test_parity_products.py::test_xdeepfm",
        "products in blocks of rows": "tests/ctr/test_xdeepfm.py::test_blocks_of_rows_change_nothing",
    },
)


class CIN(nn.Module):
    """Compressed interaction network with the linear layer on its sums (eq. 6 to 8).

    Args:
        n_fields: Fields F.
        units: Vectors H_k of each layer.
        out: Outputs T.
        split: Hand on the first half of a layer's vectors and sum the others.
        bias: Add a number to each vector.

    Raises:
        ConfigError: There is no layer or no vector in one, or a number of vectors that cannot be halved.
    """

    def __init__(self, n_fields: int, units: Sequence[int], out: int, *, split: bool, bias: bool) -> None:
        super().__init__()
        at_least_one(cin_units=min(units, default=0))
        odd = [size for size in units[:-1] if split and size % 2]
        if odd:
            raise ConfigError(f"cin_units: {odd[0]} cannot be halved; use even numbers with split=True")
        self.split = split
        self.handed = [*(size // 2 if split else size for size in units[:-1]), 0]
        """How many vectors the next layer takes."""
        before = [n_fields, *self.handed[:-1]]
        self.layers = nn.ModuleList(
            nn.Linear(n_fields * inputs, size, bias=bias) for inputs, size in zip(before, units, strict=True)
        )
        summed = sum(units) - (sum(self.handed) if split else 0)
        self.head = nn.Linear(summed, out, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, d) to (B, T); under autocast in its dtype, since products are bound by memory."""
        if torch.is_autocast_enabled(vectors.device.type):
            vectors = vectors.to(torch.get_autocast_dtype(vectors.device.type))
        shape = (vectors.shape[0], vectors.shape[2])
        first = x = vectors.transpose(1, 2).flatten(0, 1)  # [B d, F]
        sums: list[Tensor] = []
        for layer, handed in zip(self.layers, self.handed, strict=True):
            assert isinstance(layer, nn.Linear)
            weight, bias = layer.weight.to(x.dtype), layer.bias
            if self.split or not handed:
                inner = torch.bmm(vectors, x.unflatten(0, shape))  # [B, F, H]
                alone = functional.linear(inner.flatten(1), weight[handed:])
                sums.append(alone if bias is None else alone + shape[1] * bias[handed:])
            if handed:
                x = compressed_products(first, x, weight[:handed])  # [B d, H]
                x = x if bias is None else x + bias[:handed].to(x.dtype)
                if not self.split:
                    sums.append(x.unflatten(0, shape).sum(1))
        return self.head(torch.cat(sums, dim=1))

    def pair_strengths(self, n_fields: int) -> Tensor:
        """By what the head multiplies <e_i, e_j> of the first layer's sums, (T, F, F)."""
        skipped = self.handed[0] if self.split else 0
        weight = self.layers[0].get_parameter("weight")[skipped:]
        return (self.head.weight[:, : len(weight)] @ weight).unflatten(1, (n_fields, n_fields))


@register_model(_CARD)
class XDeepFM(CTRModel):
    """Compressed interaction network, first-order terms and an MLP.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' and linear weights' initialisation.
        cin_units: Vectors H_k of each layer of the CIN.
        split: Hand on the first half of each layer's vectors but the last's, and sum the others only.
        cin_bias: Add a learned number to each vector of the CIN.
        hidden_units: Widths of the MLP.
        activation: Of the MLP, see `graphrec.ctr.layers.activation`.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.

    Raises:
        ConfigError: ``cin_units`` are none, not positive, or odd where they are split.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        cin_units: tuple[int, ...] = (64, 64),
        split: bool = False,
        cin_bias: bool = False,
        hidden_units: tuple[int, ...] = (400, 400),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        self.linear = LinearTerms(spec, std=embedding_std)
        self.cin = CIN(self.n_fields, cin_units, self.n_labels, split=split, bias=cin_bias)
        self.mlp = MLP(
            self.flat_dim,
            hidden_units,
            out=self.n_labels,
            activation_name=activation,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        fields = self.embedding.flat(features)
        return self.linear(features) + self.cin(fields.vectors) + self.mlp(fields)

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Mean size of each pair's term in the sums of the first layer, averaged over labels: (F, F)."""
        strength = self.cin.pair_strengths(self.n_fields)
        return pair_products(self.embedding(features)) * (strength + strength.mT).abs().mean(0)
