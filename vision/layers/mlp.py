"""The two linear layers of a block, and their activation, which needs no second tensor without gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .normed import Linear


class GELU(nn.GELU):
    """GELU that overwrites its argument where no gradient is wanted.

    For activations inside a layer, whose argument nobody else reads: the widest tensors of a network, for
    which a system that gives back what is freed finds new pages in every block.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if torch.is_grad_enabled():
            return super().forward(x)
        return torch.ops.aten.gelu_(x, approximate=self.approximate)  # type: ignore[no-any-return]


class ReLU(nn.ReLU):
    """ReLU that overwrites its argument where no gradient is wanted, as `GELU` does.

    For the output of a linear layer, a view, which autograd copies if training overwrites it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return super().forward(x) if torch.is_grad_enabled() else torch.relu_(x)


class Mlp(nn.Module):
    """``fc2(gelu(fc1(x)))`` over the last axis, with timm's names.

    Args:
        dim: Channels.
        hidden: Channels between the layers.
        drop: Dropout after the activation and after the second layer.
        approximate: As of :class:`torch.nn.GELU`.
    """

    def __init__(self, dim: int, hidden: int, *, drop: float = 0.0, approximate: str = "none") -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = GELU(approximate)
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        x = self.drop1(self.act(self.fc1(x)))
        out: Tensor = self.drop2(self.fc2(x))
        return out
