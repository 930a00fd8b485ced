"""Features that a graph has by itself: kinds of nodes, degrees, rows that sum to one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .container import GraphSet


def one_hot(values: np.ndarray | Tensor, known: np.ndarray | None = None) -> Tensor:
    """float32 (n, k) for k different values, or for those ``known``, where any other value gets zeros."""
    values = np.asarray(values)
    kinds = np.unique(values) if known is None else np.asarray(known)
    column = np.searchsorted(kinds, values).clip(max=max(len(kinds) - 1, 0))
    x = torch.zeros(len(values), len(kinds))
    if len(kinds):
        hit = torch.from_numpy(kinds[column] == values)
        x[torch.arange(len(values))[hit], torch.from_numpy(column)[hit]] = 1.0
    return x


def degrees(graphs: GraphSet) -> Tensor:
    """Edges into each node, int64 (N,)."""
    shift = torch.repeat_interleave(graphs.node_ptr[:-1], graphs.edge_ptr.diff())
    return torch.bincount(graphs.edge_index[1] + shift, minlength=len(graphs.x))


def with_degree_features(graphs: GraphSet, largest: int | None = None) -> GraphSet:
    """The set with one-hot degrees in place of its features, as GIN has it for social graphs (arXiv
    1810.00826).

    Args:
        graphs: The set.
        largest: Degrees from here up share a column; None gives each degree that occurs in the set a column.
    """
    degree = degrees(graphs).numpy()
    if largest is not None:
        return replace(graphs, x=one_hot(degree.clip(max=largest), np.arange(largest + 1)))
    return replace(graphs, x=one_hot(degree))


def row_normalised(x: Tensor) -> Tensor:
    """Rows divided by the sum of their absolute values; rows of zeros stay. Float (N, F) to float (N, F)."""
    total = x.abs().sum(1, keepdim=True)
    return x / torch.where(total > 0, total, torch.ones_like(total))
