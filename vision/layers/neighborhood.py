"""Attention to the nearest positions of a map (NAT, arXiv:2204.07143; dilated, arXiv:2209.15001)."""

from __future__ import annotations

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from graphrec.errors import RunError
from graphrec.kernels import RelativeBias
from graphrec.kernels.patterns import Neighborhood, Pattern

from .attention import GridAttention


class NeighborhoodAttention(GridAttention):
    """Attention to the nearest ``kernel`` keys per axis, ``dilation`` apart, as NATTEN has it.

    ``rpb`` (heads, 2k - 1, 2k - 1) is added to the logits, by key minus query in steps of the dilation.

    Args:
        dim: Channels.
        heads: Heads, which divide the channels.
        kernel: Keys that a query sees on each axis.
        dilation: Distance of neighbouring keys.
        qkv_bias: Whether the packed projection has a bias.
        proj_drop: Dropout after the last projection.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel: tuple[int, int],
        dilation: int = 1,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dim, heads, qkv_bias=qkv_bias, proj_drop=proj_drop)
        self.kernel, self.dilation = kernel, dilation
        self.rpb = nn.Parameter(torch.empty(heads, 2 * kernel[0] - 1, 2 * kernel[1] - 1))
        trunc_normal_(self.rpb, std=0.02)

    def forward(
        self, x: Tensor, pattern: Pattern | None = None, bias: RelativeBias | Tensor | None = None
    ) -> Tensor:
        """(B, H, W, C) to the same shape; ``pattern`` and ``bias`` are the layer's own unless given.

        A map that the neighborhood does not fit into is padded with zeros at the bottom and the right, which
        join as keys, as NATTEN's module does it.
        """
        height, width = x.shape[1:3]
        tall, wide = (
            max(one, side * self.dilation) for one, side in zip((height, width), self.kernel, strict=True)
        )
        if (tall, wide) != (height, width):
            x = F.pad(x, (0, 0, 0, wide - width, 0, tall - height))
        pattern = pattern or Neighborhood((tall, wide), self.kernel, self.dilation)
        return super().forward(x, pattern, self._bias() if bias is None else bias)[:, :height, :width]

    def _bias(self) -> RelativeBias:
        """The table by query minus key, in steps of one position, with zeros at what dilation skips."""
        step = self.dilation
        window = tuple((one - 1) * step + 1 for one in self.kernel)
        table = self.rpb.flip(1, 2)
        if step > 1:
            spread = table.new_zeros(len(table), *(2 * one - 1 for one in window))
            spread[:, ::step, ::step] = table
            table = spread
        return RelativeBias(table.flatten(1), window)


def resize_rpb(value: Tensor, target: Tensor) -> Tensor:
    """A table (heads, n, m) at the size of another neighborhood, bicubic, as the 11x11 weights were made.

    Raises:
        RunError: Another number of heads.
    """
    if value.dim() != 3 or len(value) != len(target):
        raise RunError(f"bias table {tuple(value.shape)}: the model has {tuple(target.shape)}")
    grid = F.interpolate(value.float()[None], size=tuple(target.shape[1:]), mode="bicubic")
    return grid[0].to(value.dtype)
