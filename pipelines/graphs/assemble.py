"""From long lists of nodes and edges of many graphs to a `GraphSet`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .container import GraphSet
from .edges import EdgePolicy, clean_edges


def assemble(
    x: Tensor,
    node_graph: np.ndarray,
    edges: np.ndarray,
    y: Tensor,
    *,
    edge_attr: Tensor | None = None,
    classes: Sequence[str | int] = (),
    name: str,
    edge_name: str | None = None,
    policy: EdgePolicy,
) -> GraphSet:
    """Sort edges into their graphs and apply the policy.

    Args:
        x: float32 (N, F), the nodes of a graph next to each other.
        node_graph: Graph of every node, int64 (N,), ascending.
        edges: Ends of every edge, numbered through all nodes, int64 (E, 2); both in one graph.
        y: (G,) or (G, T).
        edge_attr: float32 (E, D), or None.
        classes: Text or numbers.
        name: What messages call the set.
        edge_name: What messages call the edges; ``name`` by default.
        policy: See `EdgePolicy`.

    Returns:
        The set; the edges of each graph are sorted by source and target unless the policy keeps duplicates.
    """
    ends = torch.from_numpy(np.ascontiguousarray(edges.T, dtype=np.int64)).reshape(2, -1)
    ends, edge_attr, notes = clean_edges(ends, len(x), edge_attr, policy, edge_name or name)
    graph = torch.from_numpy(np.array(node_graph, dtype=np.int64))
    node_ptr = _pointers(graph, len(y))
    owner = graph[ends[0]]
    if bool((owner.diff() < 0).any()):
        order = torch.argsort(owner, stable=True)
        ends, owner = ends[:, order], owner[order]
        edge_attr = None if edge_attr is None else edge_attr[order]
    local = ends - node_ptr[owner]
    return GraphSet(
        x, local, node_ptr, _pointers(owner, len(y)), y, edge_attr, tuple(classes), name=name, notes=notes
    )


def _pointers(owner: Tensor, graphs: int) -> Tensor:
    counts = torch.bincount(owner, minlength=graphs)
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))
