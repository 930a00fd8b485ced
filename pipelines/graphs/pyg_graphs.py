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

MOST_CLASSES = 100_000
"""More of them are taken for something else than numbers of classes."""


@overload
def from_pyg(graphs: Data, *, name: str = ...) -> Data: ...
@overload
def from_pyg(
    graphs: Iterable[Data], *, classes: Sequence[str] | None = ..., labels: bool = ..., name: str = ...
) -> GraphSet: ...
def from_pyg(
    graphs: Any, *, classes: Sequence[str] | None = None, labels: bool = True, name: str = "graphs"
) -> Data | GraphSet:
    """Check a `Data` for tasks on nodes, or gather a list or data set of them.

    Args:
        graphs: One `Data`; or a list, PyG data set or batch of `Data` with x (n, F) or none, edge_index, a y
            of one class or one row of targets, and perhaps edge_attr. Other attributes are left behind.
        classes: Names of the classes; by default their numbers from 0 to the largest.
        labels: Whether y is read; without, every graph of a set has class -1, as for predictions.
        name: What messages call them.

    Returns:
        For one `Data` a shallow copy with ``x`` (ones without features); otherwise a `GraphSet`.

    Raises:
        DataError: Something is no graph, edges are no integers (2, E) or lead to a missing node, a feature is
            not finite, a label is missing, or graphs differ in width; names the graph.
    """
    if isinstance(graphs, Data) and not hasattr(graphs, "_slice_dict"):
        return _check_one(graphs, name)
    listed = _listed(graphs, name)
    _refuse_mixtures(listed, name)
    sizes = [int(d.num_nodes or 0) for d in listed]
    edges = [edge_index_of(d, f"{name}: graph {i}") for i, d in enumerate(listed)]
    plain = listed[0].x is None
    x = torch.ones(sum(sizes), 1) if plain else torch.cat([_columns(d.x) for d in listed])
    y = _targets(listed, name) if labels else torch.full((len(listed),), -1)
    attr = torch.cat([_columns(d.edge_attr) for d in listed]) if listed[0].edge_attr is not None else None
    ends = [e.shape[1] for e in edges]
    return _finish(x, torch.cat(edges, dim=1), sizes, ends, y, attr, classes, labels, name)


def _listed(graphs: Any, name: str) -> list[Data]:
    """The graphs of whatever was given, each looked at for what it is."""
    if not hasattr(graphs, "to_data_list") and not isinstance(graphs, Iterable):
        raise DataError(f"{name}: should be torch_geometric.data.Data, one or a list, found {_kind(graphs)}")
    listed: list[Any] = graphs.to_data_list() if hasattr(graphs, "to_data_list") else list(graphs)
    if not listed:
        raise DataError(f"{name}: holds no graphs")
    for i, one in enumerate(listed):
        _refuse_others(one, f"{name}: graph {i}")
    return listed


def _refuse_others(data: Any, name: str) -> None:
    """Refuse what is no graph of PyG, or holds its features in another form."""
    if not isinstance(data, Data):
        raise DataError(
            f"{name}: should be a torch_geometric.data.Data, found {_kind(data)}; from_networkx and "
            "read_graph make one"
        )
    for part, values in _with_parts(data).items():
        dense = isinstance(values, Tensor) and values.layout == torch.strided and values.dim() > 0
        if values is not None and not dense:
            raise DataError(f"{name}: {part} should be a dense tensor with a row each, found {_kind(values)}")
        if values is not None and values.is_complex():
            raise DataError(f"{name}: {part} should be of real numbers, found {_kind(values)}")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor ({value.layout}, {value.dtype}) of shape {tuple(value.shape)}"
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _finish(
    x: Tensor,
    edge_index: Tensor,
    sizes: list[int],
    edges: list[int],
    y: Tensor,
    attr: Tensor | None,
    classes: Sequence[str] | None,
    labels: bool,
    name: str,
) -> GraphSet:
    nodes, ends = (torch.tensor(np.concatenate([[0], np.cumsum(n)]).astype(np.int64)) for n in (sizes, edges))
    if y.is_floating_point():
        return GraphSet(x, edge_index, nodes, ends, y.float(), attr, name=name)
    if not labels:
        return GraphSet(x, edge_index, nodes, ends, y, attr, tuple(classes or ()), name=name)
    if bool((y < 0).any()):
        raise DataError(f"{name}: graph {int((y < 0).nonzero()[0])} has no class; label it or leave it out")
    largest = int(y.max())
    if classes is None and largest >= MOST_CLASSES:
        raise DataError(
            f"{name}: graph {int(y.argmax())} is of class {largest}; classes are numbered from 0 on, "
            "without gaps"
        )
    known: tuple[str | int, ...] = tuple(classes) if classes is not None else tuple(range(largest + 1))
    if largest >= len(known):
        raise DataError(
            f"{name}: graph {int(y.argmax())} is of class {largest}, and classes names {len(known)}"
        )
    return GraphSet(x, edge_index, nodes, ends, y.long(), attr, known, name=name)


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


def _with_parts(data: Data) -> dict[str, Any]:
    return {"x": data.x, "edge_attr": data.edge_attr}


def _columns(values: Tensor | None) -> Tensor:
    assert values is not None
    return (values if values.dim() > 1 else values[:, None]).float()


def edge_index_of(data: Data, name: str = "the graph") -> Tensor:
    """The edges, int64 (2, E); none where the graph has no such tensor.

    Raises:
        DataError: They are no integers of this shape, or the graph has them as ``adj_t`` alone.
    """
    edges: Any = data.edge_index
    if edges is None:
        if data.get("adj_t") is not None:
            raise DataError(f"{name}: has adj_t and no edge_index; leave out the transform ToSparseTensor")
        return torch.zeros(2, 0, dtype=torch.int64)
    if not isinstance(edges, Tensor):
        raise DataError(f"{name}: edge_index should be a tensor (2, edges), found {_kind(edges)}")
    if not edges.numel():
        return torch.zeros(2, 0, dtype=torch.int64)
    whole = not (edges.is_floating_point() or edges.is_complex() or edges.dtype == torch.bool)
    if edges.dim() != 2 or len(edges) != 2 or not whole:
        turned = "; transpose it" if whole and edges.dim() == 2 and edges.shape[1] == 2 else ""
        raise DataError(
            f"{name}: edge_index should be integers of shape (2, edges), found {edges.dtype} of "
            f"{tuple(edges.shape)}{turned}"
        )
    return edges.long()


def _targets(graphs: Sequence[Data], name: str) -> Tensor:
    """Classes (G,), or numbers (G, T)."""
    rows = [_one_row(d, i, name) for i, d in enumerate(graphs)]
    first = rows[0]
    for i, row in enumerate(rows):
        if row.shape != first.shape or row.is_floating_point() != first.is_floating_point():
            raise DataError(
                f"{name}: graph {i}: y is {row.dtype} of {tuple(row.shape)}, that of graph 0 is "
                f"{first.dtype} of {tuple(first.shape)}"
            )
    return torch.cat(rows)


def _one_row(data: Data, graph: int, name: str) -> Tensor:
    y = _as_tensor(data.y, graph, name)
    if y is None or y.numel() == 0:
        raise DataError(f"{name}: graph {graph} has no label (y); label it or leave it out")
    if y.is_floating_point():
        if not bool(torch.isfinite(y).all()):
            raise DataError(
                f"{name}: graph {graph} has no target (y is {y.flatten().tolist()}); leave it out"
            )
        return y.reshape(1, -1)
    if y.numel() != 1:
        raise DataError(f"{name}: graph {graph} has {y.numel()} classes in y; a graph has one")
    return y.reshape(1).long()


def _as_tensor(y: Any, graph: int, name: str) -> Tensor | None:
    if y is None or isinstance(y, Tensor):
        return y
    try:
        return torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{name}: graph {graph}: y should be a number, found {y!r}; number the classes from 0 on and "
            "name them in classes"
        ) from None


def _check_one(data: Data, name: str) -> Data:
    _refuse_others(data, name)
    copy = data.clone("_")
    if copy.x is None:
        copy.x = torch.ones(int(data.num_nodes or 0), 1)
    copy.x, copy.edge_index = _columns(copy.x), edge_index_of(data, name)
    # One graph of a set: its checks are those of a set.
    ends, nodes = copy.edge_index, len(copy.x)
    attr = None if copy.edge_attr is None else _columns(copy.edge_attr)
    ptr = [torch.tensor([0, count]) for count in (nodes, ends.shape[1])]
    try:
        GraphSet(copy.x, ends, ptr[0], ptr[1], torch.zeros(1, dtype=torch.int64), attr, name=name)
    except DataError as error:
        raise DataError(str(error).replace(f"{name}: graph 0", name, 1)) from None
    return copy
