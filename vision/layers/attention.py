"""Attention over a map, restricted by a pattern of the kernel layer."""

from __future__ import annotations

from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.kernels import RelativeBias, attention, split_heads
from graphrec.kernels.patterns import Full, Pattern, Windows

from .normed import Linear
from .tables import relative_bias_table


class GridAttention(nn.Module):
    """Multi-head self-attention of the positions of a map; a pattern says who sees whom.

    Args:
        dim: Channels.
        heads: Heads, which divide the channels.
        qkv_bias: Whether the packed projection has a bias.
        bias_window: Reach of a learned relative bias on each axis, none if None. A pattern may reach less
            far: a window that is cut to a small map uses the middle of the table.
        proj_drop: Dropout after the last projection.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qkv_bias: bool = True,
        bias_window: tuple[int, int] | None = None,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ConfigError(f"num_heads: {heads} heads do not divide {dim} channels")
        self.heads, self.bias_window = heads, bias_window
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.relative_position_bias_table: nn.Parameter | None = None
        if bias_window is not None:
            self.relative_position_bias_table = relative_bias_table(bias_window, heads)

    def forward(
        self, x: Tensor, pattern: Pattern | None = None, bias: RelativeBias | Tensor | None = None
    ) -> Tensor:
        """Mixed positions of a map.

        Args:
            x: (B, H, W, C), or tokens (B, N, C).
            pattern: Who sees whom; all see all if None.
            bias: Added to the logits, in place of the layer's own table.

        Returns:
            The same shape.
        """
        q, k, v = split_heads(self.qkv(x).flatten(1, -2), self.heads)  # [B, heads, L, D]
        table = self.relative_position_bias_table
        if bias is None and table is not None and self.bias_window is not None:
            bias = RelativeBias(table.T, self.bias_window)
        mixed = attention(q, k, v, pattern or Full(), bias=bias)
        return self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(x.shape)))


def shifted_windows(size: tuple[int, int], window: tuple[int, int], shifted: bool) -> Windows:
    """Swin's windows on a map, shifted by half a window if asked for.

    On an axis that is no longer than the window there is one window, and no shift. The size of the map that
    the windows want is ``shape``: pad to it.
    """
    fit = tuple(min(one, side) for one, side in zip(size, window, strict=True))
    shape = tuple(one + -one % side for one, side in zip(size, fit, strict=True))
    shift = tuple(
        side // 2 if shifted and one > full else 0 for one, side, full in zip(size, fit, window, strict=True)
    )
    return Windows(shape, fit, shift, border="-100")
