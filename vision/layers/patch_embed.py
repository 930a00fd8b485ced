"""From an image to patches."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers import to_2tuple
from torch import Tensor, nn
from torch.nn import functional as F


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
        self.proj = nn.Conv2d(in_chans, dim, self.patch, self.patch)
        self.norm = nn.Identity() if norm is None else norm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Patches (B, H', W', dim) of an image (B, C, H, W)."""
        (height, width), (tall, wide) = x.shape[-2:], self.patch
        if height % tall or width % wide:
            x = F.pad(x, (0, -width % wide, 0, -height % tall))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))
