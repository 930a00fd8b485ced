"""Launching the kernels of dynamic convolution. Tensors are views (B, G, M, H, W) with any strides."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..configs import tabled
from .dynamic_places import Axis


@dataclass(frozen=True)
class DynamicConfig:
    """Launch settings: channels and positions per program, warps."""

    members: int
    positions: int
    warps: int

    def settings(self) -> dict[str, int]:
        """Arguments of a kernel."""
        return {"BM": self.members, "BP": self.positions, "num_warps": self.warps}


@tabled("dynamic_conv2d", by="members")
def dynamic_config(members: int, positions: int) -> DynamicConfig:
    """Some two thousand numbers per program, sixteen a thread; few positions take a smaller tile."""
    m = min(16, 1 << (max(members, 1) - 1).bit_length())
    p = min(256, 2048 // m, 1 << (max(positions, 16) - 1).bit_length())
    return DynamicConfig(m, p, 4 if m * p >= 1024 else 2)


def forward(out: Tensor, x: Tensor, weight: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the output (B, G, M, H', W') for x (B, G, M, H, W) and weight (B, G, kh * kw, H', W')."""
    from . import dynamic_triton_kernels

    batch, groups, members = x.shape[:3]
    count = rows.count * columns.count
    config = dynamic_config(members, count)
    m_tiles, p_tiles = -(-members // config.members), -(-count // config.positions)
    dynamic_triton_kernels.forward[(batch * groups * m_tiles * p_tiles,)](
        x, weight, out, rows.table(x.device), columns.table(x.device),
        *x.stride(), *weight.stride(), *out.stride(), groups, members, count, columns.count,
        rows.kernel, columns.kernel, m_tiles, p_tiles, **config.settings(),
    )  # fmt: skip


def backward_input(dx: Tensor, grad: Tensor, weight: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the gradient (B, G, M, H, W) of the input."""
    from . import dynamic_triton_kernels

    batch, groups, members = grad.shape[:3]
    count = rows.length * columns.length
    config = dynamic_config(members, count)
    m_tiles, p_tiles = -(-members // config.members), -(-count // config.positions)
    row_out, row_tap = rows.inverse(grad.device)
    column_out, column_tap = columns.inverse(grad.device)
    dynamic_triton_kernels.backward_input[(batch * groups * m_tiles * p_tiles,)](
        grad, weight, dx, row_out, row_tap, column_out, column_tap,
        *grad.stride(), *weight.stride(), *dx.stride(), groups, members, count, columns.length,
        row_out.shape[1], column_out.shape[1], columns.kernel, m_tiles, p_tiles, **config.settings(),
    )  # fmt: skip


def backward_weight(dweight: Tensor, grad: Tensor, x: Tensor, rows: Axis, columns: Axis) -> None:
    """Write the gradient (B, G, kh * kw, H', W') of the filters."""
    from . import dynamic_triton_kernels

    batch, groups, members = x.shape[:3]
    count = rows.count * columns.count
    config = dynamic_config(members, count)
    p_tiles = -(-count // config.positions)
    dynamic_triton_kernels.backward_weight[(batch * groups * rows.kernel * p_tiles,)](
        grad, x, dweight, rows.table(x.device), columns.table(x.device), *grad.stride(), *x.stride(),
        groups, members, count, columns.count, rows.kernel, columns.kernel, p_tiles, **config.settings(),
    )  # fmt: skip
