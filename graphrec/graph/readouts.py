"""From the nodes of each graph to one vector: sum, mean and maximum by our kernels, PyG's aggregations under
one name each, and DGCNN's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import AttentionalAggregation, Set2Set
from torch_geometric.utils import to_dense_batch

from graphrec.errors import ConfigError
from graphrec.kernels.graph import segment_reduce

Reduce = Literal["sum", "mean", "max"]
_BY_SEGMENT: dict[str, Reduce] = {"sum": "sum", "mean": "mean", "max": "max"}
READOUTS = ("mean", "sum", "max", "attention", "set2set", "sort")


class SegmentPooling(nn.Module):
    """Each feature's sum, mean or maximum over a graph's nodes; 0 for a graph without nodes.

    Args:
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.
    """

    def __init__(self, reduce: Reduce) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, x: Tensor, index: Tensor, ptr: Tensor, dim_size: int) -> Tensor:
        """(N, D) -> (B, D)."""
        return segment_reduce(x, ptr, self.reduce)


class SortPooling(nn.Module):
    """Sort pooling and the convolutions after it (DGCNN; Zhang et al., AAAI 2018, section 3.2).

    The ``keep`` nodes with the largest last feature, in that order (zeros where a graph has fewer), go
    through a convolution per node, a maximum of pairs, and a convolution along the nodes.

    Args:
        width: D.
        keep: Nodes kept; at least 10, for the second convolution to fit.

    Raises:
        ConfigError: ``keep`` is less.
    """

    def __init__(self, width: int, keep: int = 30) -> None:
        super().__init__()
        if keep < 10:
            raise ConfigError(f"keep={keep}: sort pooling needs at least 10 nodes")
        self.keep, self.out_features = keep, 32 * (keep // 2 - 4)
        self.per_node, self.along = nn.Linear(width, 16), nn.Conv1d(16, 32, 5)

    def forward(
        self, x: Tensor, index: Tensor | None = None, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        """(N, D) -> (B, out_features)."""
        rows, real = to_dense_batch(x, index, batch_size=dim_size)  # zeros behind each graph's nodes
        last = rows[..., -1].masked_fill(~real, -torch.inf)
        # stable, unlike PyG's SortAggregation: after a ReLU many nodes tie, in an order that padding changes
        order = last.sort(stable=True, dim=1, descending=True).indices[:, : self.keep]
        rows = rows.gather(1, order.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
        rows = torch.nn.functional.pad(rows, (0, 0, 0, self.keep - rows.shape[1]))
        pairs = torch.max_pool1d(self.per_node(rows).relu().mT, 2)  # (B, 16, keep / 2)
        return self.along(pairs).relu().flatten(1)


def make_readout(name: str, width: int) -> tuple[nn.Module, int]:
    """A readout called as PyG's aggregations are, ``readout(x, index, ptr, dim_size)``.

    Args:
        name: One of `READOUTS`.
        width: Features of a node.

    Returns:
        The module, and features of a graph.

    Raises:
        ConfigError: The name is unknown.
    """
    if name in _BY_SEGMENT:
        return SegmentPooling(_BY_SEGMENT[name]), width
    if name == "attention":
        return AttentionalAggregation(nn.Linear(width, 1)), width
    if name == "set2set":
        return Set2Set(width, processing_steps=3), 2 * width
    if name == "sort":
        pooling = SortPooling(width)
        return pooling, pooling.out_features
    raise ConfigError(f"readout={name!r}: must be histograph or one of {', '.join(READOUTS)}")
