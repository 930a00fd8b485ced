"""DCN-V2 (Wang, Shivanna, Cheng, Jain, Lin, Hong, Chi: DCN V2, WWW 2021, arXiv 2008.13535).

Idea: layers that multiply the input with a linear map of the previous layer give all interactions of bounded
order; an MLP beside them (parallel) or after them (stacked) gives the rest.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                                             (eq. 1)
    mixture: x_{l+1} = sum_i G_i(x_l) x_0 * (U_i g(C_i g(V_i^T x_l)) + b_l) + x_l     (eq. 4, g = tanh)
    parallel: logit = w^T [x_L || MLP(x_0)] ;  stacked: logit = w^T MLP(x_L)

Official code: TensorFlow Recommenders, `tfrs.layers.dcn.Cross` (Apache-2.0); the mixture has no official code
and follows the paper. With several labels the last layer has one output per label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model

from .base import CTRModel
from .flat_fields import FlatFields, dense
from .layers import MLP, CrossNetV2, at_least_one, cross_importance, xavier_normal

Structure = Literal["parallel", "stacked", "cross"]

_CARD = Card(
    name="dcnv2",
    task="ctr",
    title="DCN-V2: Improved Deep & Cross Network (WWW 2021)",
    paper="https://arxiv.org/abs/2008.13535",
    code="https://github.com/tensorflow/recommenders",
    licence="Apache-2.0",
    published={"MovieLens-1M AUC (FCN's fields)": 0.9056, "Criteo AUC (FCN's split)": 0.8145},
    verified={
        "parity with FuxiCTR's layers": "tests/ctr/test_parity.py::test_dcnv2",
        "the low-rank mixture equals FuxiCTR's": "tests/ctr/test_parity.py::test_cross_mixture",
    },
)


class CrossMixture(nn.Module):
    """Cross layers of low rank, mixed from experts by a softmax gate (DCN-V2, eq. 4).

    Args:
        width: Input width D.
        num_layers: Layers.
        rank: Rank r of an expert.
        num_experts: Experts k; the gates are shared by the layers.
    """

    def __init__(self, width: int, num_layers: int, rank: int, num_experts: int) -> None:
        super().__init__()
        at_least_one(num_layers=num_layers, num_experts=num_experts)
        shapes = {"reduce": (num_experts, width, rank), "core": (num_experts, rank, rank)}
        self.reduce = nn.ParameterList(torch.empty(shapes["reduce"]) for _ in range(num_layers))
        self.core = nn.ParameterList(torch.empty(shapes["core"]) for _ in range(num_layers))
        self.expand = nn.ParameterList(torch.empty(shapes["reduce"]) for _ in range(num_layers))
        self.bias = nn.ParameterList(torch.zeros(width) for _ in range(num_layers))
        self.gate = nn.Linear(width, num_experts, bias=False)
        for matrix in [*self.reduce, *self.core, *self.expand]:
            for expert in matrix:
                nn.init.xavier_normal_(expert)

    def forward(self, fields: Tensor | FlatFields) -> Tensor:
        """(B, D) to (B, D)."""
        first = x = dense(fields)
        for reduce, core, expand, bias in zip(self.reduce, self.core, self.expand, self.bias, strict=True):
            gate = self.gate(x).softmax(-1)  # [B, k]
            low = torch.tanh(torch.einsum("bd,kdr->bkr", x, reduce))
            low = torch.tanh(torch.einsum("bkr,ksr->bks", low, core))
            mixed = torch.einsum("bkr,kdr->bd", low * gate[..., None], expand)  # gates sum to one
            x = torch.addcmul(x, first, (mixed + bias).to(x.dtype))
        return x

    def kernels(self) -> list[Tensor]:
        """The (D, D) matrices ``U C V^T`` of the layers without gates and tanh, averaged over the experts."""
        layers = zip(self.reduce, self.core, self.expand, strict=True)
        return [torch.einsum("kdr,krs,kes->de", u, c, v) / len(u) for v, c, u in layers]


class CrossAndDeep(CTRModel):
    """A cross network with an MLP beside it, after it, or without one.

    Args:
        spec: Fields and labels.
        cross: Makes the cross network of width D from D.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        structure: "parallel" (MLP beside the cross layers), "stacked" (after them) or "cross" (no MLP).
        hidden_units: Widths of the MLP.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.

    Raises:
        ConfigError: The structure is unknown.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        cross: Callable[[int], CrossNetV2 | CrossMixture],
        *,
        embedding_dim: int,
        embedding_std: float,
        structure: Structure,
        hidden_units: Sequence[int],
        dropout: float,
        batch_norm: bool,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        if structure not in get_args(Structure):
            raise ConfigError(f"structure: there is no {structure!r}; use {', '.join(get_args(Structure))}")
        self.structure, width = structure, self.flat_dim
        self.cross = cross(width)
        self.mlp = None
        if structure != "cross":
            self.mlp = MLP(width, hidden_units, dropout=dropout, batch_norm=batch_norm)
        deep = 0 if self.mlp is None else self.mlp.out_features
        head_width = {"parallel": width + deep, "stacked": deep, "cross": width}[structure]
        self.head = nn.Linear(head_width, self.n_labels)
        xavier_normal(self)

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        x = self.embedding.flat(features)  # [B, D]
        crossed = self.cross(x)
        if self.mlp is None:
            return self.head(crossed)
        if self.structure == "stacked":
            return self.head(self.mlp(crossed))
        parts = self.head.weight.split([crossed.shape[1], self.mlp.out_features], dim=1)
        return functional.linear(crossed, parts[0], self.head.bias) + functional.linear(self.mlp(x), parts[1])

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """Norms of the cross layers' blocks, weighed by the sizes of the fields' embeddings: (F, F)."""
        vectors = self.embedding(features)
        shape = (self.n_fields, self.embedding_dim) * 2
        kernels = [k.view(shape) for k in self.kernels(vectors.flatten(1))]
        return cross_importance(kernels, vectors)

    def kernels(self, x: Tensor) -> list[Tensor]:
        """The (D, D) matrices by which the cross layers multiply, for rows (B, D)."""
        return self.cross.kernels()


@register_model(_CARD)
class DCNv2(CrossAndDeep):
    """Cross network with an MLP.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        structure: "parallel" (MLP beside the cross layers), "stacked" (after them) or "cross" (no MLP).
        num_layers: Cross layers.
        hidden_units: Widths of the MLP.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.
        rank: Rank of the experts of the low-rank mixture; 0 for full matrices.
        num_experts: Experts of the mixture.

    Raises:
        ConfigError: The structure is unknown.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        structure: Structure = "parallel",
        num_layers: int = 3,
        hidden_units: tuple[int, ...] = (400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        rank: int = 0,
        num_experts: int = 4,
    ) -> None:
        def cross(width: int) -> CrossNetV2 | CrossMixture:
            if rank:
                return CrossMixture(width, num_layers, rank, num_experts)
            return CrossNetV2(width, num_layers)

        super().__init__(
            spec,
            cross,
            embedding_dim=embedding_dim,
            embedding_std=embedding_std,
            structure=structure,
            hidden_units=hidden_units,
            dropout=dropout,
            batch_norm=batch_norm,
        )
