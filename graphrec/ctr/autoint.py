"""AutoInt (Song, Shi, Xiao, Duan, Xu, Zhang, Tang: AutoInt, CIKM 2019, arXiv 1810.11921).

Idea: multi-head self-attention between the fields' vectors finds which fields to combine; stacked layers with
residual connections give higher orders.

    alpha^h_{mk} = softmax_k <W_Q^h e_m, W_K^h e_k>,   e~^h_m = sum_k alpha^h_{mk} W_V^h e_k       (eq. 5, 6)
    e^res_m = ReLU(e~_m + W_res e_m),   e~_m = concat of the heads                                 (eq. 7, 8)
    logit = w^T [e^res_1 || ... || e^res_F] + b;   AutoInt+ adds the logit of an MLP on the embeddings

Official code: https://github.com/DeepGraphLearning/RecommenderSystems at e07370a (MIT), `featureRec/autoint`,
TensorFlow 1. It departs from the equations, and the default here follows it: Q, K, V and the residual are
dense layers with bias and ReLU, scores are divided by sqrt(d'), dropout acts on the attention weights, and
each layer ends with LayerNorm(ReLU(.)) of epsilon 1e-8. ``paper=True`` gives the equations. The random start
of the official output bias, N(0, 1), is left out.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from graphrec.kernels.interaction import interacting_layer, project
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model
from graphrec.training.dropout import Dropout

from .base import CTRModel
from .layers import MLP, at_least_one, attention_weights, xavier_normal

_PAPER = "https://arxiv.org/abs/1810.11921"
_CODE = "https://github.com/DeepGraphLearning/RecommenderSystems"
_VERIFIED = {
    "the official code's equations, loop by loop": "tests/ctr/test_autoint.py::test_official_equations",
    "the paper's equations, loop by loop": "tests/ctr/test_autoint.py::test_paper_equations",
    "parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_autoint",
}
_DIFFERS = "The output bias starts at zero; the official code draws it from N(0, 1)."

_AUTOINT = Card(
    name="autoint",
    task="ctr",
    title="AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks (CIKM 2019)",
    paper=_PAPER,
    code=_CODE,
    licence="MIT",
    published={"Criteo AUC": 0.8061, "Avazu AUC": 0.7752, "KDD12 AUC": 0.7883, "MovieLens-1M AUC": 0.8456},
    verified=_VERIFIED,
    differs=_DIFFERS,
)
_AUTOINT_PLUS = Card(
    name="autoint_plus",
    task="ctr",
    title="AutoInt+: AutoInt joined with an MLP (CIKM 2019)",
    paper=_PAPER,
    code=_CODE,
    licence="MIT",
    published={"Criteo AUC": 0.8083, "Avazu AUC": 0.7774, "KDD12 AUC": 0.7898, "MovieLens-1M AUC": 0.8488},
    verified=_VERIFIED,
    differs=_DIFFERS,
)


_BLOCK_FLOATS = 640_000
"""Size of a layer's projection for a block of rows; best for 26 and 39 fields, 16 and 64 units."""


class InteractingLayer(nn.Module):
    """One interacting layer: self-attention between fields.

    Queries, keys, values and the residual come from one projection with weight (4 h d', d_in), in this order,
    heads inside each; (3 h d', d_in) without the residual.

    Args:
        width: Input width d_in.
        heads: Heads h.
        head_dim: Width d' of a head.
        residual: Add the projected input.
        dropout: Dropout rate of the attention weights.
        paper: The paper's equations rather than the official code's.
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, *, residual: bool, dropout: float, paper: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_dim, self.residual, self.dropout = heads, head_dim, residual, dropout
        self.paper = paper
        self.scale = 1.0 if paper else head_dim**-0.5
        self.project = nn.Linear(width, (3 + residual) * heads * head_dim, bias=not paper)
        self.norm = None if paper else nn.LayerNorm(heads * head_dim, eps=1e-8)
        self._reset()

    def _reset(self) -> None:
        for part in self.project.weight.detach().chunk(3 + self.residual):
            nn.init.xavier_uniform_(part)
        if self.project.bias is not None:
            nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, d_in) to (B, F, h d')."""
        out = interacting_layer(
            x,
            self.project.weight,
            self.project.bias,
            heads=self.heads,
            scale=self.scale,
            residual=self.residual,
            rectify=not self.paper,
            dropout=self.dropout if self.training else 0.0,
        )
        return out if self.norm is None else self.norm(out)

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights (B, h, F, F): how much row field m takes from column field k."""
        query, key, *_ = project(
            x,
            self.project.weight,
            self.project.bias,
            heads=self.heads,
            residual=self.residual,
            rectify=not self.paper,
        )
        return attention_weights(query, key, self.scale)


class AutoInt(CTRModel):
    """Stacked interacting layers; with ``hidden_units`` also an MLP (AutoInt+).

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        num_layers: Interacting layers.
        num_heads: Attention heads h.
        head_dim: Width d' of a head; a layer is h d' wide.
        residual: Residual connections.
        attention_dropout: Dropout rate of the attention weights.
        embedding_dropout: Dropout rate of the embeddings.
        hidden_units: Widths of the joint MLP; none for AutoInt.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.
        paper: The paper's equations rather than the official code's.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 0.01,
        num_layers: int = 3,
        num_heads: int = 2,
        head_dim: int = 32,
        residual: bool = True,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        hidden_units: tuple[int, ...] = (),
        dropout: float = 0.0,
        batch_norm: bool = False,
        paper: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        at_least_one(num_layers=num_layers, num_heads=num_heads, head_dim=head_dim)
        width = num_heads * head_dim
        layer = partial(
            InteractingLayer,
            heads=num_heads,
            head_dim=head_dim,
            residual=residual,
            dropout=attention_dropout,
            paper=paper,
        )
        self.dropout = Dropout(embedding_dropout)
        self.layers = nn.ModuleList(layer(width if i else embedding_dim) for i in range(num_layers))
        if not batch_norm:  # its statistics are of the batch, not of a block
            self.block_rows = max(1, _BLOCK_FLOATS // (4 * width * self.n_fields))
        self.head = nn.Linear(self.n_fields * width, self.n_labels)
        xavier_normal(self.head)
        self.mlp = None
        if hidden_units:
            self.mlp = MLP(
                self.flat_dim, hidden_units, out=self.n_labels, dropout=dropout, batch_norm=batch_norm
            )
            xavier_normal(self.mlp)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        return self.interact(self.embedding(features))

    def interact(self, vectors: Tensor) -> Tensor:
        """Logits (B, T) from the embeddings (B, F, d)."""
        vectors = self.dropout(vectors)
        x = vectors
        for layer in self.layers:
            x = layer(x)
        logits = self.head(x.flatten(1))
        return logits if self.mlp is None else logits + self.mlp(vectors.flatten(1))

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Attention weights averaged over rows, heads and layers: (F, F), rows sum to one."""
        x = self.embedding(features)
        total = x.new_zeros(self.n_fields, self.n_fields)
        for layer in self.layers:
            assert isinstance(layer, InteractingLayer)
            total += layer.weights(x).mean((0, 1))
            x = layer(x)
        return total / len(self.layers)


register_model(_AUTOINT)(AutoInt)
register_model(_AUTOINT_PLUS)(partial(AutoInt, hidden_units=(400, 400)))
