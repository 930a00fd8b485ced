"""MaskNet (Wang, She, Zhang: MaskNet, DLP-KDD 2021, arXiv 2102.07619).

Idea: a layer adds up its inputs, so the row itself first multiplies them, by a mask that a small MLP makes of
all embeddings x = [e_1 || ... || e_F]:

    mask = W_2 ReLU(W_1 x + b_1) + b_2,  W_1 of r times as many rows as the mask has            (eq. 5)
    LN_EMB(x) = [LN(e_1) || ... || LN(e_F)], each field with a gain and a bias of its own       (eq. 9)
    block on embeddings: ReLU(LN(W (mask * LN_EMB(x))))                                   (eq. 11, 12)
    block on a block:    ReLU(LN(W (mask * output of the block before)))                  (eq. 13, 14)
    parallel: logit = MLP([block_1 || ... || block_u]), all on embeddings                 (eq. 15, 16)
    serial: logit = w^T block_u(... block_2(block_1))

Official code: none by the authors; parity is with FuxiCTR's model. With several labels the last layer has one
output per label. Both normalisations are off by default: they make vectors of rare ids, which a prior holds
near zero, and what is computed of them, as large as those of frequent ones. LN_EMB also takes the size from a
numeric field without a curve. ``embedding_norm=True, layer_norm=True`` is the paper's form.
b_2 starts at one: masks near zero, one after the other, would stop the gradient of small embeddings.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec
from graphrec.registry import Card, register_model
from graphrec.training.dropout import Dropout

from .base import CTRModel
from .flat_fields import FlatFields
from .layers import MLP, activation, at_least_one, cross_importance, xavier_normal

Structure = Literal["parallel", "serial"]

_CARD = Card(
    name="masknet",
    task="ctr",
    title="MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by Instance-Guided Mask "
    "(DLP-KDD 2021)",
    paper="https://arxiv.org/abs/2102.07619",
    published={
        "Criteo AUC": 0.8124,
        "Avazu AUC": 0.7872,
        "MovieLens-1M AUC (FCN's fields)": 0.9034,
        "Criteo AUC (FCN's split)": 0.8134,
    },
    differs="Normalises only with `embedding_norm` and `layer_norm`: both undo the prior of rare ids. "
    "Masks start at one.",
    verified={"parity with FuxiCTR's layers": "tests/ctr/test_parity_products.py::test_masknet"},
)


class FieldNorm(nn.Module):
    """Layer normalisation of each field's vector, with a gain and a bias per field (eq. 9).

    Args:
        n_fields: Fields F.
        dim: Embedding width d.
    """

    def __init__(self, n_fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_fields, dim))
        self.bias = nn.Parameter(torch.zeros(n_fields, dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, F, d) to (B, F, d)."""
        return torch.addcmul(self.bias, functional.layer_norm(vectors, vectors.shape[-1:]), self.weight)


class MaskBlock(nn.Module):
    """A layer whose inputs are multiplied by the instance-guided mask (eq. 5, 11 to 14).

    Args:
        width: Width D of all embeddings.
        inputs: Width of what is masked.
        units: Width of the output.
        mask_units: Hidden units of the mask's MLP.
        activation_name: See `graphrec.ctr.layers.activation`.
        layer_norm: Normalise before the activation.
        dropout: Dropout rate of the output.
    """

    def __init__(
        self,
        width: int,
        inputs: int,
        units: int,
        mask_units: int,
        *,
        activation_name: str,
        layer_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mask = MLP(width, (mask_units,), out=inputs)
        self.linear = nn.Linear(inputs, units, bias=False)
        self.norm = nn.LayerNorm(units) if layer_norm else nn.Identity()
        self.activation = activation(activation_name, units)
        self.dropout = Dropout(dropout)

    def forward(self, fields: Tensor | FlatFields, hidden: Tensor) -> Tensor:
        """Embeddings (B, D), which make the mask, and what is masked (B, inputs), to (B, units)."""
        return self.dropout(self.activation(self.norm(self.linear(self.mask(fields) * hidden))))

    @torch.no_grad()
    def open(self) -> None:
        """Let masks of small embeddings be near one: a start near zero is multiplied once more per block."""
        self.mask[-1].get_parameter("bias").fill_(1.0)

    def kernel(self, x: Tensor) -> Tensor:
        """The linear map from embeddings to mask, (inputs, D), that ReLUs leave on average over (B, D)."""
        first, _, second = self.mask
        active = (first(x) > 0).to(x.dtype).mean(0)
        return (second.weight * active) @ first.weight


@register_model(_CARD)
class MaskNet(CTRModel):
    """Mask blocks side by side or one after the other.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        structure: "parallel" (blocks on the embeddings, then an MLP) or "serial" (each on the one before).
        block_units: Width of each mask block.
        hidden_units: Widths of the MLP on the blocks' outputs; the serial structure has none.
        mask_ratio: Hidden units of a mask's MLP, by the width of the mask: the paper's reduction ratio r.
        activation: Of the blocks and the MLP, see `graphrec.ctr.layers.activation`.
        dropout: Dropout rate of blocks and MLP.
        embedding_norm: Normalise the vector of each field before it is masked, as the paper does.
        layer_norm: Normalise in the blocks, as the paper does.

    Raises:
        ConfigError: The structure is unknown, there is no block, or the ratio is not positive.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        embedding_dim: int = 16,
        embedding_std: float = 1e-4,
        structure: Structure = "parallel",
        block_units: tuple[int, ...] = (128, 128, 128),
        hidden_units: tuple[int, ...] = (128, 64),
        mask_ratio: float = 1.0,
        activation: str = "relu",
        dropout: float = 0.0,
        embedding_norm: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(spec, embedding_dim=embedding_dim, embedding_std=embedding_std)
        if structure not in get_args(Structure):
            raise ConfigError(f"structure: there is no {structure!r}; use {', '.join(get_args(Structure))}")
        if not mask_ratio > 0:
            raise ConfigError(f"mask_ratio: {mask_ratio} is not positive; use 1 or 2, for instance")
        at_least_one(block_units=len(block_units))
        self.structure = structure
        self.norm = FieldNorm(self.n_fields, embedding_dim) if embedding_norm else nn.Identity()
        width, serial = self.flat_dim, structure == "serial"
        inputs = [width, *block_units[:-1]] if serial else [width] * len(block_units)
        self.blocks = nn.ModuleList(
            MaskBlock(
                width,
                size,
                units,
                max(1, int(size * mask_ratio)),
                activation_name=activation,
                layer_norm=layer_norm,
                dropout=dropout,
            )
            for size, units in zip(inputs, block_units, strict=True)
        )
        self.head = MLP(
            block_units[-1] if serial else sum(block_units),
            () if serial else hidden_units,
            out=self.n_labels,
            activation_name=activation,
            dropout=dropout,
        )
        xavier_normal(self)
        for block in self.blocks:
            assert isinstance(block, MaskBlock)
            block.open()

    def forward(self, features: Features) -> Tensor:
        """Logits (B, T)."""
        fields = self.embedding.flat(features)
        x = self.norm(fields.vectors).flatten(1)  # [B, D]
        if self.structure == "parallel":
            return self.head(torch.cat([block(fields, x) for block in self.blocks], dim=1))
        for block in self.blocks:
            x = block(fields, x)
        return self.head(x)

    @torch.no_grad()
    def field_interactions(self, features: Features) -> Tensor:
        """How strongly field j makes the mask of field i, by the sizes of both: (F, F).

        Block norms as of cross layers, of the maps that the masks' ReLUs leave on average.
        """
        vectors = self.embedding(features)
        shape, kernels = (self.n_fields, self.embedding_dim) * 2, []
        for block in self.blocks[:1] if self.structure == "serial" else self.blocks:  # others mask units
            assert isinstance(block, MaskBlock)
            kernels.append(block.kernel(vectors.flatten(1)).view(shape))
        return cross_importance(kernels, vectors, self.norm(vectors))
