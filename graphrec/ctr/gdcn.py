"""GDCN (Wang, Gu, Li, Lu, Zhang, Gu: Deeper, Lighter and Interpretable Cross Network, CIKM 2023,
arXiv 2311.04635).

Idea: the cross layers of DCN-V2, each of which lets through only the share of its products that an
information gate finds useful for the row, so that deeper networks do not drown in products.

    x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(G_l x_l) + x_l                          (eq. 1)
    parallel (GDCN-P): logit = w^T [x_L || MLP(x_0)] ;  stacked (GDCN-S): logit = w^T MLP(x_L)

Official code: https://github.com/anonctr/GDCN (no licence stated); FuxiCTR's model follows it. With several
labels the last layer has one output per label. The parallel structure is the default: it is the better one
in the paper. Biases start at zero; those of both codes are drawn from U(0, 1). The paper's second part, a
width for each field found by PCA after a first training (FDO), is absent: fields have one width here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.pipelines.tables.features import FeatureSpec
from graphrec.registry import Card, register_model

from .dcnv2 import CrossAndDeep, Structure
from .flat_fields import FlatFields, linear
from .layers import CrossNetV2

_CARD = Card(
    name="gdcn",
    task="ctr",
    title="GDCN: Towards Deeper, Lighter and Interpretable Cross Network for CTR Prediction (CIKM 2023)",
    paper="https://arxiv.org/abs/2311.04635",
    code="https://github.com/anonctr/GDCN",
    published={"Criteo AUC": 0.8161, "Avazu AUC": 0.7909},
    differs="Biases start at zero rather than in U(0, 1); all fields have one width (no FDO).",
    verified={
        "parity with FuxiCTR's layers": "tests/ctr/test_parity_products.py::test_gdcn",
        "open gates leave DCN-V2": "tests/ctr/test_gdcn.py::test_open_gates_leave_the_cross_network_of_dcnv2",
    },
)


class GatedCrossNet(CrossNetV2):
    """Gated cross network, GCN (eq. 1).

    Args:
        width: Input width D.
        num_layers: Layers.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__(width, num_layers)
        self.gates = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(num_layers))

    def factor(self, number: int, x: Tensor | FlatFields) -> Tensor:
        """``(W x + b) * sigmoid(G x)``, (B, D)."""
        return super().factor(number, x) * linear(self.gates[number], x).sigmoid()

    def kernels_of(self, x: Tensor) -> list[Tensor]:
        """The (D, D) matrices W_l, each row times its gate's average over the rows (B, D)."""
        found, first = [], x
        for number, (weight, gate) in enumerate(zip(self.kernels(), self.gates, strict=True)):
            found.append(weight * gate(x).sigmoid().mean(0)[:, None])
            x = torch.addcmul(x, first, self.factor(number, x))
        return found


@register_model(_CARD)
class GDCN(CrossAndDeep):
    """Gated cross network with an MLP.

    Args:
        spec: Fields and labels.
        embedding_dim: Embedding width d.
        embedding_std: Standard deviation of the embeddings' initialisation.
        structure: "parallel" (GDCN-P), "stacked" (GDCN-S) or "cross" (no MLP: the paper's GCN).
        num_layers: Gated cross layers.
        hidden_units: Widths of the MLP.
        dropout: Dropout rate of the MLP.
        batch_norm: Batch normalisation in the MLP.

    Raises:
        ConfigError: The structure is unknown.
    """

    cross: GatedCrossNet

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
    ) -> None:
        super().__init__(
            spec,
            lambda width: GatedCrossNet(width, num_layers),
            embedding_dim=embedding_dim,
            embedding_std=embedding_std,
            structure=structure,
            hidden_units=hidden_units,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    def kernels(self, x: Tensor) -> list[Tensor]:
        """The cross matrices by the average opening of their gates on rows (B, D)."""
        return self.cross.kernels_of(x)
