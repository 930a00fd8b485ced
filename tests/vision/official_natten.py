"""Stands in for NATTEN 0.14, which is CUDA code: its neighborhood attention with all pairs written out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def axis_neighbors(length: int, kernel: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Which positions each one attends along an axis, and in which row of the table the first one's bias is.

    A position attends ``kernel`` others of its remainder by ``dilation``, with itself in the middle where
    the axis allows.

    Returns:
        Positions (length, kernel) and rows (length, kernel).
    """
    positions, rows = [], []
    for index in range(length):
        same = list(range(index % dilation, length, dilation))
        place = same.index(index)
        start = min(max(place - kernel // 2, 0), len(same) - kernel)
        positions.append(same[start : start + kernel])
        rows.append([start + one - place + kernel - 1 for one in range(kernel)])
    return torch.tensor(positions), torch.tensor(rows)


class NeighborhoodAttention2D(nn.Module):
    """Takes and returns (B, H, W, C); parameters as NATTEN 0.14 names them."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int,
        dilation: int | None = None,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if not bias or attn_drop or proj_drop:
            raise NotImplementedError("without bias, or with dropout")
        self.num_heads, self.kernel, self.dilation = num_heads, kernel_size, dilation or 1
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        least = self.kernel * self.dilation
        x = F.pad(x, (0, 0, 0, max(least - width, 0), 0, max(least - height, 0)))
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(3)  # [B, H, W, h, D]
        ys, biases_y = axis_neighbors(x.shape[1], self.kernel, self.dilation)
        xs, biases_x = axis_neighbors(x.shape[2], self.kernel, self.dilation)
        at = (ys[:, None, :, None], xs[None, :, None, :])  # [H, W, K, K] together
        bias = self.rpb[:, biases_y[:, None, :, None], biases_x[None, :, None, :]]  # [h, H, W, K, K]
        scores = torch.einsum("byxhd,byxijhd->bhyxij", q * self.scale, k[:, *at]) + bias
        weights = scores.flatten(-2).softmax(-1).view_as(scores)
        out = torch.einsum("bhyxij,byxijhd->byxhd", weights, v[:, *at]).flatten(-2)
        return self.proj(out[:, :height, :width])
