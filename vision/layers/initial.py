"""Initial values that most transformers and modern convolutional networks share."""

from __future__ import annotations

from timm.layers import trunc_normal_
from torch import nn


def init_linear_and_conv(module: nn.Module, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases of a linear layer or convolution, for ``model.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
