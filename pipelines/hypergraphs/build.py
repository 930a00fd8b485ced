"""Hypergraphs made of something else: lists of vertices, or a graph's neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from numbers import Integral

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError

from .container import Hypergraph


def from_edge_lists(
    x: Tensor,
    edges: Sequence[Sequence[int]],
    y: Tensor | None = None,
    *,
    edge_weight: Tensor | None = None,
    classes: Sequence[str | int] = (),
    name: str = "hypergraph",
) -> Hypergraph:
    """From the vertices of each hyperedge; an empty list is an empty hyperedge, repeated vertices count once.

    Args:
        x: float32 (N, F).
        edges: Vertices, numbered from 0, of each hyperedge.
        y: int64 (N,), or None.
        edge_weight: float32 (M,), or None.
        classes: Text of the classes; their numbers by default.
        name: What messages call it.

    Raises:
        DataError: A vertex is missing, or something is no number of one.
    """
    for number, edge in enumerate(edges):
        if isinstance(edge, str) or not hasattr(edge, "__len__"):
            raise DataError(f"{name}: hyperedge {number} should be a list of vertices, found {edge!r:.60}")
        wrong = [one for one in edge if not isinstance(one, Integral | Tensor)]
        if wrong:
            raise DataError(f"{name}: hyperedge {number} holds {wrong[0]!r:.60}, which is no vertex's number")
    sizes = torch.tensor([len(e) for e in edges], dtype=torch.int64)
    vertices = torch.tensor(list(chain.from_iterable(edges)), dtype=torch.int64)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    bad = ((vertices < 0) | (vertices >= len(x))).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{name}: hyperedge {int(owner[bad[0]])} holds vertex {int(vertices[bad[0]])}; vertices are 0 "
            f"to {len(x) - 1}"
        )
    pairs = torch.unique(torch.stack([owner, vertices]), dim=1).flip(0)
    return Hypergraph(
        x, pairs, len(sizes), y, edge_weight=edge_weight, classes=_classes(y, classes), name=name
    )


def from_graph(data: Data, *, pairs: bool = True, name: str = "hypergraph") -> Hypergraph:
    """From a graph: a hyperedge for each edge and one for each vertex with its neighbours.

    That is how LightHGNN (arXiv 2402.04296) makes hypergraphs of Cora, Citeseer and Pubmed.

    Args:
        data: x (N, F), edge_index (2, E) and perhaps y. Directions and repetitions do not matter; a loop adds
            nothing.
        pairs: Whether the edges become hyperedges too, or the neighbourhoods alone.
        name: What messages call it.

    Raises:
        ConfigError: The graph has no features.
    """
    if data.x is None or data.edge_index is None:
        raise ConfigError(f"{name}: from_graph needs x and edge_index")
    ends = data.edge_index[:, data.edge_index[0] != data.edge_index[1]]
    nodes = len(data.x)
    low = torch.unique(torch.stack([ends.min(0).values, ends.max(0).values]), dim=1)
    own = torch.arange(nodes)
    vertex, edge = [own, low[0], low[1]], [own, low[1], low[0]]
    if pairs:
        count = torch.arange(low.shape[1])
        vertex, edge = [low[0], low[1], *vertex], [count, count, *(e + len(count) for e in edge)]
    y = data.y if isinstance(data.y, Tensor) else None
    incidence = torch.stack([torch.cat(vertex), torch.cat(edge)])
    total = nodes + (low.shape[1] if pairs else 0)
    return Hypergraph(data.x.float(), incidence, total, y, classes=_classes(y, ()), name=name)


def _classes(y: Tensor | None, classes: Sequence[str | int]) -> tuple[str | int, ...]:
    if classes or y is None or not len(y):
        return tuple(classes)
    return tuple(range(int(y.max()) + 1))
