"""To and from networkx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx as _to_networkx

from graphrec.errors import ConfigError, DataError

from .edges import EdgePolicy, clean_edges
from .pyg_graphs import from_pyg


def from_networkx(
    graph: Any,
    labels: Any = None,
    *,
    features: Sequence[str] = (),
    edge_features: Sequence[str] = (),
    label: str | None = None,
    policy: EdgePolicy | None = None,
    classes: Sequence[str] | None = None,
    name: str = "graph",
) -> Any:
    """From one networkx graph, or several with labels.

    Args:
        graph: A graph, or a list of them. An undirected one gives both directions of its edges.
        labels: A class (int) or targets (float) for each graph of a list.
        features: Node attributes, numbers or lists of them, that become ``x``; a constant 1 without.
        edge_features: Edge attributes that become ``edge_attr``.
        label: Node attribute, a whole number, that becomes ``y`` of one graph.
        policy: See `EdgePolicy`; None keeps the edges as the graph's type has them, several in a multigraph.
        classes: Text of the classes.
        name: What messages call it.

    Returns:
        A `Data` for one graph, nodes in the graph's order; a `GraphSet` for a list.

    Raises:
        ConfigError: A list without labels.
        DataError: A node or edge lacks an attribute, or it is not a finite number.
    """
    if hasattr(graph, "nodes"):
        return from_pyg(_one_networkx(graph, features, edge_features, label, policy, name), name=name)
    graphs = list(graph)
    if labels is None or len(labels) != len(graphs):
        found = "none" if labels is None else len(labels)
        raise ConfigError(f"labels: {len(graphs)} graphs need as many labels, got {found}")
    listed = []
    for i, (one, y) in enumerate(zip(graphs, torch.as_tensor(labels), strict=True)):
        data = _one_networkx(one, features, edge_features, None, policy, f"{name} {i}")
        data.y = y.reshape(1, -1) if y.is_floating_point() else y.reshape(1)
        listed.append(data)
    return from_pyg(listed, classes=classes, name=name)


def _one_networkx(
    graph: Any,
    features: Sequence[str],
    edge_features: Sequence[str],
    label: str | None,
    policy: EdgePolicy | None,
    name: str,
) -> Data:
    number = {node: i for i, node in enumerate(graph.nodes)}
    listed = list(graph.edges(data=True))
    pairs = np.array([(number[u], number[v]) for u, v, _ in listed], dtype=np.int64).reshape(-1, 2)
    ends, attr = torch.from_numpy(pairs.T.copy()), None
    if edge_features:
        rows = [_attributes(a, edge_features, f"{name}: edge {u!r} -> {v!r}") for u, v, a in listed]
        attr = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1)
    if not graph.is_directed():
        other = ends[0] != ends[1]
        ends = torch.cat([ends, ends[:, other].flip(0)], dim=1)
        attr = None if attr is None else torch.cat([attr, attr[other]])
    if policy is not None:
        ends, attr, _ = clean_edges(ends, len(number), attr, policy, name)
    data = Data(edge_index=ends, num_nodes=len(number))
    if features:
        x = [_attributes(a, features, f"{name}: node {node!r}") for node, a in graph.nodes(data=True)]
        data.x = torch.tensor(x, dtype=torch.float32).reshape(len(x), -1)
    if attr is not None:
        data.edge_attr = attr
    if label is not None:
        data.y = torch.tensor(
            [int(_attributes(a, [label], f"{name}: node {node!r}")[0]) for node, a in graph.nodes(data=True)]
        )
    return data


def _attributes(found: dict[str, Any], names: Sequence[str], where: str) -> list[float]:
    values: list[float] = []
    for attribute in names:
        if attribute not in found:
            raise DataError(
                f"{where} has no attribute {attribute!r}; it has {', '.join(map(str, found)) or 'none'}"
            )
        try:
            values += np.asarray(found[attribute], dtype=np.float64).reshape(-1).tolist()
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: attribute {attribute!r} is {found[attribute]!r}, not a number"
            ) from error
    return values


def to_networkx(data: Data, *, undirected: bool = False) -> Any:
    """A networkx graph with node attributes ``x`` and ``y`` and edge attribute ``edge_attr``, where there are
    any.

    Args:
        data: One graph; ``graphs[i]`` of a `GraphSet`.
        undirected: Whether each pair of directions becomes one edge of an undirected graph.
    """
    nodes = [k for k in ("x", "y") if isinstance(data.get(k), Tensor) and len(data[k]) == data.num_nodes]
    edges = ["edge_attr"] if data.edge_attr is not None else []
    return _to_networkx(data, node_attrs=nodes, edge_attrs=edges, to_undirected=undirected)
