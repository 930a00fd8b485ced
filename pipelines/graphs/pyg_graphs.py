"""To and from PyG: one `Data`, or lists and data sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import DataError

from .container import GraphSet


@overload
def from_pyg(graphs: Data, *, name: str = ...) -> Data: ...
@overload
def from_pyg(graphs: Iterable[Data], *, classes: Sequence[str] | None = ..., name: str = ...) -> GraphSet: ...
def from_pyg(graphs: Any, *, classes: Sequence[str] | None = None, name: str = "graphs") -> Data | GraphSet:
    """Check a `Data` for tasks on nodes, or gather a list or data set of them.

    Args:
        graphs: One `Data`; or a list, PyG data set or batch of `Data` with x (n, F) or none, edge_index, a y
            of one class or one row of targets, and perhaps edge_attr. Other attributes are left behind.
        classes: Text of the classes; by default their numbers from 0 to the largest.
        name: What messages call them.

    Returns:
        For one `Data` a shallow copy with ``x`` (ones without features); otherwise a `GraphSet`.

    Raises:
        DataError: An edge leads to a missing node, a feature is not finite, a label is missing, or graphs
            differ in width; names the graph.
    """
    if isinstance(graphs, Data) and not hasattr(graphs, "_slice_dict"):
        return _check_one(graphs, name)
    listed = graphs.to_data_list() if hasattr(graphs, "to_data_list") else list(graphs)
    if not listed:
        raise DataError(f"{name}: holds no graphs")
    _refuse_mixtures(listed, name)
    sizes = [int(d.num_nodes or 0) for d in listed]
    edges = [edge_index_of(d) for d in listed]
    plain = listed[0].x is None
    x = torch.ones(sum(sizes), 1) if plain else torch.cat([_columns(d.x) for d in listed])
    y = torch.cat([_one_row(d, i, name) for i, d in enumerate(listed)])
    attr = torch.cat([_columns(d.edge_attr) for d in listed]) if listed[0].edge_attr is not None else None
    return _finish(x, torch.cat(edges, dim=1), sizes, [e.shape[1] for e in edges], y, attr, classes, name)


def _finish(
    x: Tensor,
    edge_index: Tensor,
    sizes: list[int],
    edges: list[int],
    y: Tensor,
    attr: Tensor | None,
    classes: Sequence[str] | None,
    name: str,
) -> GraphSet:
    nodes, ends = (torch.tensor(np.concatenate([[0], np.cumsum(n)]).astype(np.int64)) for n in (sizes, edges))
    if y.is_floating_point():
        y = y.float()
        _refuse_graphs(~torch.isfinite(y.flatten(1) if y.dim() > 1 else y[:, None]).all(1), name, "target")
        return GraphSet(x, edge_index, nodes, ends, y, attr, name=name)
    _refuse_graphs((y < 0).reshape(len(y), -1).any(1), name, "class")
    largest = int(y.max())
    known = tuple(classes) if classes is not None else tuple(str(i) for i in range(largest + 1))
    if largest >= len(known):
        raise DataError(
            f"{name}: graph {int(y.argmax())} is of class {largest}, and classes names {len(known)}"
        )
    return GraphSet(x, edge_index, nodes, ends, y.long(), attr, known, name=name)


def _refuse_graphs(bad: Tensor, name: str, what: str) -> None:
    if bool(bad.any()):
        raise DataError(f"{name}: graph {int(bad.nonzero()[0])} has no {what}; label it or leave it out")


def _refuse_mixtures(graphs: Sequence[Data], name: str) -> None:
    for part in ("x", "edge_attr"):
        shapes = [
            None if d[part] is None else tuple(_columns(d[part]).shape[1:]) for d in map(_with_parts, graphs)
        ]
        other = next((i for i, s in enumerate(shapes) if s != shapes[0]), None)
        if other is not None:
            raise DataError(
                f"{name}: graph {other}: {part} of width {shapes[other]}, graph 0 has {shapes[0]}"
            )


def _with_parts(data: Data) -> dict[str, Tensor | None]:
    return {"x": data.x, "edge_attr": data.edge_attr}


def _columns(values: Tensor | None) -> Tensor:
    assert values is not None
    return (values if values.dim() > 1 else values[:, None]).float()


def edge_index_of(data: Data) -> Tensor:
    """The edges, int64 (2, E); none where the graph has no such tensor."""
    edges = data.edge_index
    return torch.zeros(2, 0, dtype=torch.int64) if edges is None else edges.long().reshape(2, -1)


def _one_row(data: Data, graph: int, name: str) -> Tensor:
    y = data.y if isinstance(data.y, Tensor) or data.y is None else torch.tensor(data.y)
    if y is None or y.numel() == 0:
        raise DataError(f"{name}: graph {graph} has no label (y); label it or leave it out")
    if y.is_floating_point():
        return y.reshape(1, -1)
    if y.numel() != 1:
        raise DataError(f"{name}: graph {graph} has {y.numel()} classes in y; a graph has one")
    return y.reshape(1).long()


def _check_one(data: Data, name: str) -> Data:
    copy = data.clone("_")
    if copy.x is None:
        copy.x = torch.ones(int(data.num_nodes or 0), 1)
    copy.x, copy.edge_index = _columns(copy.x), edge_index_of(data)
    # One graph of a set: its checks are those of a set.
    ends, nodes = copy.edge_index, len(copy.x)
    attr = None if copy.edge_attr is None else _columns(copy.edge_attr)
    GraphSet(
        copy.x,
        ends,
        torch.tensor([0, nodes]),
        torch.tensor([0, ends.shape[1]]),
        torch.zeros(1, dtype=torch.int64),
        attr,
        name=name,
    )
    return copy
