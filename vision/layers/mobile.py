"""Parts of small networks for phones that descend from LeViT: everything is a convolution with batch norm.

The names of modules are those of the official codes of EfficientViT (MSRA) and SHViT, which share them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from timm.layers import DropPath, SelectAdaptivePool2d, SqueezeExcite
from torch import Tensor, nn

from .batch_normed import NormReLU
from .conv_norm import ConvNorm, fold_forward
from .normed import Linear


class Residual(nn.Module):
    """``x + m(x)``; with a depthwise convolution as ``m``, one convolution when fused."""

    def __init__(self, m: nn.Module, drop_path: float = 0.0) -> None:
        super().__init__()
        self.m = m
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        out: Tensor = self.m(x)
        return x + (self.drop_path(out) if self.training else out)

    @torch.no_grad()
    def fused(self) -> nn.Module:
        """The convolution with 1 added to its middle, or the block itself."""
        conv = self.m
        if not isinstance(conv, nn.Conv2d) or conv.groups != conv.out_channels or conv.stride != (1, 1):
            return self
        middle = [side // 2 for side in conv.kernel_size]
        conv.weight[:, 0, middle[0], middle[1]] += 1
        return conv


class PointwiseMLP(nn.Module):
    """Two 1x1 convolutions with ReLU between; the last norm starts at zero."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.pw1 = ConvNorm(dim, hidden)
        self.act = nn.ReLU(inplace=True)
        self.pw2 = ConvNorm(hidden, dim, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.pw2(self.act(self.pw1(x)))


class SqueezeMerging(nn.Module):
    """Half the resolution: expand to four times the width, depthwise, squeeze-and-excitation, project."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        wide = 4 * dim
        self.conv1 = ConvNorm(dim, wide)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = ConvNorm(wide, wide, 3, 2, 1, wide)
        self.se = SqueezeExcite(wide, 0.25)
        self.conv3 = ConvNorm(wide, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, out, ceil(H / 2), ceil(W / 2))."""
        return self.conv3(self.se(self.act(self.conv2(self.act(self.conv1(x))))))


def depthwise(dim: int, scale: float = 1.0) -> Residual:
    """A 3x3 depthwise convolution around which the input is added."""
    return Residual(ConvNorm(dim, dim, 3, 1, 1, dim, scale=scale))


def conv_stem(in_chans: int, dim: int) -> nn.Sequential:
    """Four 3x3 convolutions of stride 2 with ReLU between: an image to maps at a sixteenth."""
    widths = [in_chans, dim // 8, dim // 4, dim // 2, dim]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [ConvNorm(before, after, 3, 2, 1), NormReLU()]
    return nn.Sequential(*layers[:-1])


def merging_stage(dim: int, out: int) -> nn.Sequential:
    """What stands between two stages: residual parts, `SqueezeMerging`, residual parts."""
    return nn.Sequential(
        nn.Sequential(depthwise(dim), Residual(PointwiseMLP(dim, 2 * dim))),
        SqueezeMerging(dim, out),
        nn.Sequential(depthwise(out), Residual(PointwiseMLP(out, 2 * out))),
    )


class NormHead(nn.Module):
    """Pool, batch norm, linear: a classifier of maps (B, C, H, W), as timm's heads are used.

    Args:
        dim: Channels of the map.
        num_classes: Classes; 0 leaves the normalised features.
        pool_type: As timm's pooling has it, "" for none.
        drop_rate: Dropout between norm and classifier.
    """

    def __init__(self, dim: int, num_classes: int, pool_type: str = "avg", drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_features = dim
        self.drop = nn.Dropout(drop_rate)
        self.bn: nn.Module = nn.BatchNorm1d(dim)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """A fresh classifier; ``pool_type`` as for the constructor, unchanged if None."""
        if pool_type is not None:
            self.pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            self.fc = Linear(self.num_features, num_classes)
            nn.init.trunc_normal_(self.fc.weight, std=0.02)
            nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, classes), or what the classifier would see; the map where nothing pools it."""
        x = self.pool(x)
        if x.dim() != 2:
            return x
        x = self.drop(self.bn(x))
        return x if pre_logits else self.fc(x)

    def fused(self) -> nn.Module:
        """The head with its norm folded into the classifier."""
        if isinstance(self.fc, nn.Linear) and isinstance(self.bn, nn.BatchNorm1d):
            self.fc = fold_forward(self.bn, self.fc)
            self.bn = nn.Identity()
        return self
