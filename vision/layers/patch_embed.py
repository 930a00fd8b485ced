"""From an image to patches, and to fewer positions of a map with channels last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import Conv2d


def convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of a map with channels last, (B, H, W, C) to (B, H', W', C').

    In training, a map that holds fewer numbers than half the weights is copied to channels first: for a map
    with channels last the gradient of the weights comes with channels last, and autograd makes a second one.
    """
    x = x.permute(0, 3, 1, 2)
    if not torch.compiler.is_compiling() and torch.is_grad_enabled() and 2 * x.numel() < conv.weight.numel():
        x = x.contiguous()
    out: Tensor = conv(x)
    return out.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Non-overlapping patches by a strided convolution, (B, C, H, W) to (B, H / patch, W / patch, dim).

    An image that the patches do not divide is padded with zeros at the bottom and the right.

    Args:
        in_chans: Channels of the image.
        dim: Channels of a patch.
        patch: Side, or height and width, of a patch.
        norm: Makes the norm over channels, none if None.
    """

    def __init__(
        self,
        in_chans: int,
        dim: int,
        patch: int | tuple[int, int],
        norm: Callable[[int], nn.Module] | None = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.patch: tuple[int, int] = to_2tuple(patch)
        self.proj = Conv2d(in_chans, dim, self.patch, self.patch)
        self.norm = nn.Identity() if norm is None else norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Patches (B, H', W', dim) of an image (B, C, H, W)."""
        (height, width), (tall, wide) = x.shape[-2:], self.patch
        if height % tall or width % wide:
            x = F.pad(x, (0, -width % wide, 0, -height % tall))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class OverlapPatchEmbed(nn.Module):
    """Overlapping patches by a strided convolution, and a norm.

    Args:
        in_chans: Channels of the map.
        dim: Channels of a patch.
        kernel: Side of a patch.
        stride: Positions from one patch to the next.
    """

    def __init__(self, in_chans: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = Conv2d(in_chans, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ceil(H / stride), ceil(W / stride), dim)."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class OverlapDownsample(OverlapPatchEmbed):
    """Half the resolution of a map with channels last, from 3x3 positions."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__(in_chans, dim, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), dim)."""
        return self.norm(convolved(self.proj, x))
