"""To and from DGL, which the extra ``dgl`` installs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError, MissingExtraError

from .container import GraphSet
from .pyg_graphs import edge_index_of, from_pyg

MASKS = ("train_mask", "val_mask", "test_mask")


def from_dgl(
    graph: Any,
    labels: Any = None,
    *,
    features: str = "feat",
    edge_features: str | None = None,
    label: str = "label",
    classes: Sequence[str] | None = None,
    name: str = "graph",
) -> Any:
    """From one homogeneous DGL graph, or several with labels (as a DGL data set yields them).

    Args:
        graph: A ``DGLGraph``, or a list of them.
        labels: A class or targets for each graph of a list.
        features: Name in ``ndata`` of what becomes ``x``; where it is absent, a constant 1.
        edge_features: Name in ``edata`` of what becomes ``edge_attr``.
        label: Name in ``ndata`` of what becomes ``y`` of one graph; masks keep their names.
        classes: Text of the classes.
        name: What messages call it.

    Returns:
        A `Data` for one graph; a `GraphSet` for a list. Edges keep their order.

    Raises:
        ConfigError: A list without labels.
        DataError: The graph has several kinds of nodes, or what `from_pyg` refuses.
    """
    if hasattr(graph, "ndata"):
        return from_pyg(_one_dgl(graph, features, edge_features, label, name), name=name)
    graphs = list(graph)
    if labels is None or len(labels) != len(graphs):
        raise ConfigError(f"labels: {len(graphs)} graphs need as many labels")
    listed = [_one_dgl(g, features, edge_features, "", f"{name} {i}") for i, g in enumerate(graphs)]
    for data, y in zip(listed, torch.as_tensor(labels), strict=True):
        data.y = y.reshape(1, -1) if y.is_floating_point() else y.reshape(1)
    return from_pyg(listed, classes=classes, name=name)


def _one_dgl(graph: Any, features: str, edge_features: str | None, label: str, name: str) -> Data:
    if len(graph.ntypes) != 1 or len(graph.etypes) != 1:
        raise DataError(
            f"{name}: has several kinds of nodes or edges; make it homogeneous (dgl.to_homogeneous)"
        )
    source, target = graph.edges(order="eid")
    data = Data(edge_index=torch.stack([source, target]).long(), num_nodes=int(graph.num_nodes()))
    if features in graph.ndata:
        data.x = graph.ndata[features]
    if label in graph.ndata:
        data.y = graph.ndata[label]
    if edge_features is not None:
        if edge_features not in graph.edata:
            raise DataError(
                f"{name}: edata has no {edge_features!r}; it has {', '.join(graph.edata) or 'nothing'}"
            )
        data.edge_attr = graph.edata[edge_features]
    for mask in MASKS:
        if mask in graph.ndata:
            data[mask] = graph.ndata[mask].bool()
    return data


def to_dgl(data: Data | GraphSet) -> Any:
    """One ``DGLGraph`` with ``feat``, ``label`` and masks in ``ndata``; a list of graphs and their labels for
    a set.

    Raises:
        MissingExtraError: DGL is not installed.
    """
    try:
        import dgl
    except ImportError as error:
        raise MissingExtraError("to_dgl needs DGL: pip install 'graphrec[dgl]'") from error
    if isinstance(data, GraphSet):
        return [to_dgl(one) for one in data], data.y
    ends = edge_index_of(data)
    graph = dgl.graph((ends[0], ends[1]), num_nodes=int(data.num_nodes or 0))
    for key, name in (("x", "feat"), ("y", "label"), *((m, m) for m in MASKS)):
        values = data.get(key)
        if (
            isinstance(values, Tensor)
            and len(values) == data.num_nodes
            and (key != "y" or data.num_nodes != 1)
        ):
            graph.ndata[name] = values
    if data.edge_attr is not None:
        graph.edata["feat"] = data.edge_attr
    return graph
