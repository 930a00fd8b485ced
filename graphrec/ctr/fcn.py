"""FCN (Li, Zhang, Zhang, Li, Sang, Zhu; KDD 2026, arXiv 2407.13349): linear and exponential crosses, fused.

Idea: two cross networks without any MLP. The linear one (LCN) multiplies by the first layer, so the order
grows by one per layer; the exponential one (ECN) multiplies by the layer itself, so it doubles. Half of each
cross vector is masked by its own layer normalisation (Self-Mask), which halves the weights; each network has
its own loss beside the fused one (Tri-BCE).

The fields' embeddings are laid out as [all first halves || all second halves], x_1 in R^{H x D}, D = F d:

    c = BN(W_l x_l) in R^{D/2},  m = ReLU(LN(c)),  a = [c || c * m]
    LCN: x_{l+1} = x_1 * (a + b_l) + x_l        ECN: x_{l+1} = x_l * (a + b_l) + x_l
    z_D, z_S = mean over heads of a linear layer on ECN's, LCN's output;  z = (z_D + z_S) / 2
    loss = L + w_D L_D + w_S L_S,  w_D = max(0, L_D - L),  w_S = max(0, L_S - L)

Official code: https://github.com/salmon1802/FCN at 1835ffe (Apache-2.0), then called DCNv3; this file follows
its arithmetic and initialisation. It differs from the paper's text: the bias has the full width and comes
after the mask (starting in U(0, 1)), batch normalisation precedes the layer normalisation, logits are
averaged rather than probabilities, and gradients flow through w_D and w_S, as the published logs need
(``detach_weights`` cuts them).
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Batch, Features, FeatureSpec
from graphrec.registry import Card, register_model
from graphrec.training.dropout import Dropout

from .base import CTRModel, label_losses
from .cross_blocks import cross as cross_blocks
from .cross_blocks import takes
from .layers import at_least_one, cross_importance, xavier_normal

_PAPER = "https://arxiv.org/abs/2407.13349"
_CODE = "https://github.com/salmon1802/FCN"
_RECORD = "tests/ctr/test_fcn.py::test_equals_the_official_code"
_SINGLE = "tests/ctr/test_fcn.py::test_single_networks_equal_the_official_code"

_FCN = Card(
    name="fcn",
    task="ctr",
    title="FCN: Fusing Exponential and Linear Cross Network (KDD 2026)",
    paper=_PAPER,
    code=_CODE,
    licence="Apache-2.0",
    published={
        "MovieLens-1M AUC": 0.9074,
        "MovieLens-1M logloss": 0.3001,
        "Criteo AUC": 0.8162,
        "Avazu AUC": 0.7970,
        "KDD12 AUC": 0.8098,
        "KKBox AUC": 0.8557,
    },
    verified={
        "logits, losses and gradients of the official code": _RECORD,
        "201,728 parameters on MovieLens-1M": "tests/ctr/test_fcn.py::test_movielens_parameter_count",
    },
    differs="Published iPinYou figures are left out: they were chosen on the test file.",
)
_ECN = Card(
    name="ecn",
    task="ctr",
    title="ECN: the exponential cross network of FCN",
    paper=_PAPER,
    code=_CODE,
    licence="Apache-2.0",
    published={"MovieLens-1M AUC": 0.9059, "Criteo AUC": 0.8155, "Avazu AUC": 0.7965, "KDD12 AUC": 0.8090},
    verified={"logits and gradients of the official code": _SINGLE},
)
_LCN = Card(
    name="lcn",
    task="ctr",
    title="LCN: the linear cross network of FCN",
    paper=_PAPER,
    code=_CODE,
    licence="Apache-2.0",
    verified={"logits and gradients of the official code": _SINGLE},
)


class CrossLayer(nn.Module):
    """One cross layer with Self-Mask.

    Args:
        width: Cross width D, even.
        heads: Heads H; the weights are shared by them.
        batch_norm: Normalise c over batch and features, with H channels.
        layer_norm: Normalise c before the mask's ReLU.
        dropout: Dropout rate of the output.
    """

    def __init__(self, width: int, heads: int, batch_norm: bool, layer_norm: bool, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width // 2, bias=False)
        self.bias = nn.Parameter(torch.rand(width))
        self.batch_norm = nn.BatchNorm1d(heads) if batch_norm else None
        self.layer_norm = nn.LayerNorm(width // 2) if layer_norm else None
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        """Cross x with a factor, both (B, H, D): ``factor * (a + b) + x``."""
        batch, layer, weight = self.batch_norm, self.layer_norm, self.linear.weight
        if self.training and batch is not None and layer is not None and takes(x, weight):
            return cross_blocks(x, factor, weight, self.bias, batch, layer, self.dropout.p)
        cross = self.linear(x)  # [B, H, D/2]
        if self.batch_norm is not None:
            cross = self.batch_norm(cross)
        mask = torch.relu(cross if self.layer_norm is None else self.layer_norm(cross))
        both = torch.cat([cross, cross * mask], dim=-1) + self.bias
        return self.dropout(torch.addcmul(x, factor, both.to(x.dtype)))


class CrossNetwork(nn.Module):
    """A stack of `CrossLayer` with a linear head: ECN when exponential, otherwise LCN.

    Args:
        width: Cross width D.
        num_layers: Layers.
        out: Outputs T.
        exponential: Multiply by the layer itself rather than by the first.
        heads: Heads H.
        batch_norm: See `CrossLayer`.
        layer_norm: See `CrossLayer`.
        dropout: See `CrossLayer`.
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        out: int,
        *,
        exponential: bool,
        heads: int,
        batch_norm: bool,
        layer_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        at_least_one(num_layers=num_layers)
        self.exponential = exponential
        layers = (CrossLayer(width, heads, batch_norm, layer_norm, dropout) for _ in range(num_layers))
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, out)
        xavier_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, D) to logits (B, T)."""
        first = x
        for layer in self.layers:
            x = layer(x, x if self.exponential else first)
        return self.head(x).mean(1)

    def kernels(self, n_fields: int) -> list[Tensor]:
        """Each layer's matrix as (F, d/2, F, d): rows by the field of the cross vector, columns by field."""
        shape = (n_fields, -1, 2, n_fields, self.head.in_features // (2 * n_fields))
        weights = (layer.get_parameter("linear.weight").detach().view(shape) for layer in self.layers)
        return [w.transpose(2, 3).flatten(3) for w in weights]


def two_views(vectors: Tensor, heads: int) -> Tensor:
    """Lay field vectors (B, F, H d) out as (B, H, F d): per head all first halves, then all second halves."""
    batch, fields, width = vectors.shape
    halves = vectors.view(batch, fields, heads, 2, width // (2 * heads))
    return halves.permute(0, 2, 3, 1, 4).reshape(batch, heads, -1)


def _table_width(embedding_dim: int, heads: int) -> int:
    if embedding_dim % 2:
        raise ConfigError(
            f"embedding_dim: {embedding_dim} is odd; FCN splits embeddings in two, use an even one"
        )
    at_least_one(num_heads=heads)
    return embedding_dim * heads


@register_model(_FCN)
class FCN(CTRModel):
    """Linear and exponential cross networks with averaged logits and Tri-BCE.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d per head, even.
        embedding_std: Standard deviation of the embeddings' initialisation.
        deep_layers: Layers of the exponential network.
        shallow_layers: Layers of the linear network.
        deep_dropout: Dropout rate of the exponential network.
        shallow_dropout: Dropout rate of the linear network.
        num_heads: Heads H, each with its own embeddings of width d.
        batch_norm: Batch normalisation of the cross vectors.
        layer_norm: Layer normalisation inside Self-Mask.
        detach_weights: Cut the gradient through Tri-BCE's weights, as the paper's formula suggests.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        deep_layers: int = 3,
        shallow_layers: int = 4,
        deep_dropout: float = 0.1,
        shallow_dropout: float = 0.1,
        num_heads: int = 1,
        batch_norm: bool = True,
        layer_norm: bool = True,
        detach_weights: bool = False,
    ) -> None:
        table_width = _table_width(embedding_dim, num_heads)
        super().__init__(spec, embedding_dim=table_width, embedding_std=embedding_std)
        self.num_heads, self.detach_weights = num_heads, detach_weights
        network = partial(
            CrossNetwork,
            self.flat_dim // num_heads,
            heads=num_heads,
            batch_norm=batch_norm,
            layer_norm=layer_norm,
        )
        self.deep = network(deep_layers, self.n_labels, exponential=True, dropout=deep_dropout)
        self.shallow = network(shallow_layers, self.n_labels, exponential=False, dropout=shallow_dropout)

    def parts(self, features: Features) -> tuple[Tensor, Tensor]:
        """Logits (B, T) of the exponential and of the linear network."""
        x = two_views(self.embedding(features), self.num_heads)
        return self.deep(x), self.shallow(x)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        deep, shallow = self.parts(features)
        return (deep + shallow) * 0.5

    def training_loss(self, batch: Batch) -> Tensor:
        """Tri-BCE of each label, averaged over the labels."""
        deep, shallow = self.parts(batch.features)
        fused = label_losses((deep + shallow) * 0.5, batch)
        return self.average_labels(fused + self._side(deep, fused, batch) + self._side(shallow, fused, batch))

    def _side(self, logits: Tensor, fused: Tensor, batch: Batch) -> Tensor:
        loss = label_losses(logits, batch)
        weight = torch.relu(loss - fused)
        return loss * (weight.detach() if self.detach_weights else weight)

    def field_interactions(self, features: Features) -> Tensor:
        """Norms of both networks' cross weights, by the sizes of the fields' embeddings: (F, F)."""
        kernels = self.deep.kernels(self.n_fields) + self.shallow.kernels(self.n_fields)
        return cross_importance(kernels, self.embedding(features).detach())


@register_model(_LCN)
class LCN(CTRModel):
    """The linear cross network alone, with plain binary cross-entropy.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d per head, even.
        embedding_std: Standard deviation of the embeddings' initialisation.
        num_layers: Cross layers.
        dropout: Dropout rate after each layer.
        num_heads: Heads H, each with its own embeddings of width d.
        batch_norm: Batch normalisation of the cross vectors.
        layer_norm: Layer normalisation inside Self-Mask.
    """

    exponential: ClassVar[bool] = False

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        num_layers: int = 3,
        dropout: float = 0.1,
        num_heads: int = 1,
        batch_norm: bool = True,
        layer_norm: bool = True,
    ) -> None:
        table_width = _table_width(embedding_dim, num_heads)
        super().__init__(spec, embedding_dim=table_width, embedding_std=embedding_std)
        self.num_heads = num_heads
        self.network = CrossNetwork(
            self.flat_dim // num_heads,
            num_layers,
            self.n_labels,
            exponential=self.exponential,
            heads=num_heads,
            batch_norm=batch_norm,
            layer_norm=layer_norm,
            dropout=dropout,
        )

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.network(two_views(self.embedding(features), self.num_heads))

    def field_interactions(self, features: Features) -> Tensor:
        """Norms of the cross weights, by the sizes of the fields' embeddings: (F, F)."""
        return cross_importance(self.network.kernels(self.n_fields), self.embedding(features).detach())


@register_model(_ECN)
class ECN(LCN):
    """The exponential cross network alone; takes the options of `LCN`."""

    exponential = True
