"""Linear layers on node features, of which there may be few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEW = 8
"""Input features up to which the other order of factors is the faster one (two to six times, by MKL)."""


class Linear(nn.Linear):
    """`torch.nn.Linear` whose weight's gradient costs no more for a few features than for sixteen.

    torch multiplies the output's gradient, transposed, by the input. A product with 2 to 8 columns takes MKL
    several times as long as its transpose, which torch chooses where the weight lies the other way in memory.
    Molecules have 7 kinds of atoms.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., D)."""
        few = 1 < self.in_features <= FEW and x.dim() == 2 and x.device.type == "cpu"
        if not few or not self.weight.requires_grad or not torch.is_grad_enabled():
            return super().forward(x)
        weight = self.weight.t().contiguous()
        return x @ weight if self.bias is None else torch.addmm(self.bias, x, weight)


def linear(in_features: int, out_features: int) -> Linear:
    """A linear layer that keeps the scale of its input (Glorot) and adds nothing at first.

    torch's own start shrinks wide sparse features below its random bias, which deep stacks then amplify.
    """
    layer = Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
