"""Graphs from tables: one of nodes, one of edges, one of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import ConfigError

from ..frames import class_codes, id_column, matrix, need, number_columns, positions, read_frame, refuse_rows
from ..index_splits import PARTS
from .assemble import assemble
from .container import GraphSet
from .edges import AS_LISTED, EdgePolicy, clean_edges

Task = Literal["classification", "regression"]


def read_graphs(
    nodes: Any,
    edges: Any,
    labels: Any,
    *,
    graph: str = "graph",
    node: str = "node",
    source: str = "source",
    target: str = "target",
    label: str | Sequence[str] = "label",
    features: Sequence[str] | None = None,
    edge_features: Sequence[str] | None = None,
    task: Task = "classification",
    policy: EdgePolicy = AS_LISTED,
) -> GraphSet:
    """Many labelled graphs.

    Args:
        nodes: One row a node: its graph, its id in that graph, and features. Anything `open_table` takes.
        edges: One row an edge: its graph, two node ids, and features. None when no graph has an edge.
        labels: One row a graph: its id and its label. Their order is the order of the set.
        graph, node, source, target: Names of the id columns; ids are whole numbers from 0 up, or text.
        label: Column of the classes; of the targets, one or several, in regression.
        features: Columns of ``nodes`` that become ``x``, numbers or lists of them; None takes all such
            columns except ids. Without any, ``x`` is a constant 1.
        edge_features: Likewise columns of ``edges``.
        task: ``"classification"`` or ``"regression"``.
        policy: See `EdgePolicy`.

    Raises:
        SchemaError: A column is missing or of a wrong type.
        DataError: An edge leads to a missing node, an id is negative or occurs twice, a graph has no label or
            no nodes, or a feature is not finite; names table and row.
    """
    node_frame, node_name = read_frame(nodes, "nodes")
    label_frame, label_name = read_frame(labels, "labels")
    graph_ids = _unique(id_column(label_frame, graph, label_name), label_name, "graph")
    owner = positions(id_column(node_frame, graph, node_name), graph_ids)
    refuse_rows(
        owner.is_null(), node_name, "its graph has no label", f"add it to {label_name}", node_frame[graph]
    )
    empty = ~graph_ids.is_in(node_frame[graph].cast(graph_ids.dtype).implode())
    refuse_rows(empty, label_name, "the graph has no nodes", f"add them to {node_name}", graph_ids)
    ids = id_column(node_frame, node, node_name)
    known = pl.DataFrame({"graph": owner, "id": ids})
    again = ~known.to_struct().is_first_distinct()
    refuse_rows(again, node_name, "this node has an earlier row in its graph", "keep one", ids)
    x = _features(node_frame, features, [graph, node], node_name)
    ends, attr, edge_name = _edges_of_graphs(edges, known, graph_ids, (graph, source, target), edge_features)
    y, classes = _targets(label_frame, label, label_name, task)
    order = np.argsort(owner.to_numpy(), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return assemble(
        x[torch.from_numpy(order)],
        owner.to_numpy()[order],
        place[ends],
        y,
        edge_attr=attr,
        classes=classes,
        name=node_name,
        edge_name=edge_name,
        policy=policy,
    )


def read_graph(
    nodes: Any,
    edges: Any,
    labels: Any = None,
    *,
    node: str = "node",
    source: str = "source",
    target: str = "target",
    label: str | Sequence[str] | None = "label",
    split: str | None = None,
    features: Sequence[str] | None = None,
    edge_features: Sequence[str] | None = None,
    task: Task = "classification",
    unlabelled: bool = False,
    policy: EdgePolicy = AS_LISTED,
) -> Data:
    """One graph, for tasks on its nodes.

    Args:
        nodes: One row a node: its id, features, and its label unless ``labels`` has it.
        edges: One row an edge; None when there are none.
        labels: One row a labelled node: its id and label; None takes the column from ``nodes``.
        node, source, target: Names of the id columns.
        label: Column of the classes or targets; None for no labels at all.
        split: Column of ``nodes`` with ``train``, ``valid``, ``test`` or nothing, which becomes masks.
        features, edge_features, task, policy: As in `read_graphs`.
        unlabelled: Whether nodes may lack a label; their class is -1.

    Returns:
        x float32 (N, F), edge_index int64 (2, E), edge_attr float32 (E, D) if there is any, y int64 (N,) or
        float32 (N, T), and the masks; ``classes`` lists the text of the classes. Nodes are in the order of
        their rows.

    Raises:
        SchemaError: A column is missing or of a wrong type.
        DataError: As for `read_graphs`.
    """
    frame, name = read_frame(nodes, "nodes")
    ids = _unique(id_column(frame, node, name), name, "node")
    beside = [c for c in (node, split, *_names(label)) if c is not None]
    ends, attr, edge_name = _edges_of_one(edges, ids, source, target, edge_features, name)
    ends, attr, _ = clean_edges(ends, len(ids), attr, policy, edge_name)
    data = Data(x=_features(frame, features, beside, name), edge_index=ends)
    if attr is not None:
        data.edge_attr = attr
    if label is not None:
        rows, label_name = (
            (frame, name) if labels is None else _aligned(labels, ids, node, label, unlabelled, name)
        )
        data.y, data.classes = _targets(rows, label, label_name, task, unlabelled)
    if split is not None:
        _add_masks(data, frame, split, name)
    return data


def _names(label: str | Sequence[str] | None) -> list[str]:
    return [label] if isinstance(label, str) else list(label or ())


def _unique(ids: pl.Series, name: str, what: str) -> pl.Series:
    refuse_rows(~ids.is_first_distinct(), name, f"this {what} has an earlier row", "keep one", ids)
    return ids


def _features(frame: pl.DataFrame, columns: Sequence[str] | None, ids: Sequence[str], name: str) -> Tensor:
    chosen = number_columns(frame, ids) if columns is None else list(columns)
    return torch.from_numpy(matrix(frame, chosen, name)) if chosen else torch.ones(frame.height, 1)


def _edge_features(
    frame: pl.DataFrame, columns: Sequence[str] | None, ids: Sequence[str], name: str
) -> Tensor | None:
    chosen = number_columns(frame, ids) if columns is None else list(columns)
    return torch.from_numpy(matrix(frame, chosen, name)) if chosen else None


def _edges_of_graphs(
    edges: Any,
    known: pl.DataFrame,
    graph_ids: pl.Series,
    names: tuple[str, str, str],
    features: Sequence[str] | None,
) -> tuple[np.ndarray, Tensor | None, str]:
    """Rows of the node table at the ends of every edge, (E, 2); their features; the table's name."""
    if edges is None:
        return np.zeros((0, 2), np.int64), None, "edges"
    graph, source, target = names
    frame, name = read_frame(edges, "edges")
    need(frame, name, names)
    owner = positions(id_column(frame, graph, name), graph_ids)
    refuse_rows(
        owner.is_null(), name, "its graph has no label", "add the graph or drop the edge", frame[graph]
    )
    ends = []
    for column in (source, target):
        ids = id_column(frame, column, name)
        as_text = ids.dtype == pl.String or known["id"].dtype == pl.String
        kind = pl.String if as_text else pl.Int64
        nodes = known.with_columns(pl.col("id").cast(kind)).with_row_index("at")
        wanted = pl.DataFrame({"graph": owner, "id": ids.cast(kind)})
        found = wanted.join(nodes, on=["graph", "id"], how="left", maintain_order="left")["at"]
        why = f"column {column!r} names a node that its graph does not have"
        refuse_rows(found.is_null(), name, why, "add the node or drop the edge", ids)
        ends.append(found.cast(pl.Int64).to_numpy())
    return np.stack(ends, axis=1), _edge_features(frame, features, names, name), name


def _edges_of_one(
    edges: Any, ids: pl.Series, source: str, target: str, features: Sequence[str] | None, nodes: str
) -> tuple[Tensor, Tensor | None, str]:
    if edges is None:
        return torch.zeros(2, 0, dtype=torch.int64), None, "edges"
    frame, name = read_frame(edges, "edges")
    need(frame, name, [source, target])
    ends = []
    for column in (source, target):
        wanted = id_column(frame, column, name)
        found = positions(wanted, ids)
        why = f"column {column!r} names a node that {nodes} does not have"
        refuse_rows(found.is_null(), name, why, "add the node or drop the edge", wanted)
        ends.append(torch.from_numpy(found.to_numpy().astype(np.int64)))
    return torch.stack(ends), _edge_features(frame, features, [source, target], name), name


def _aligned(
    labels: Any, ids: pl.Series, node: str, label: str | Sequence[str], unlabelled: bool, nodes: str
) -> tuple[pl.DataFrame, str]:
    """The label columns in the order of the nodes, null where a node has none."""
    frame, name = read_frame(labels, "labels")
    need(frame, name, _names(label))
    given = _unique(id_column(frame, node, name), name, "node")
    refuse_rows(
        positions(given, ids).is_null(), name, f"the node is not in {nodes}", "add it or drop the row", given
    )
    at = positions(ids, given)
    if not unlabelled:
        refuse_rows(
            at.is_null(),
            nodes,
            f"the node has no label in {name}",
            "label it, or read with unlabelled=True",
            ids,
        )
    return frame.select(_names(label)).with_row_index("__at").select(_names(label))[at], name


def _targets(
    frame: pl.DataFrame, label: str | Sequence[str], name: str, task: Task, unlabelled: bool = False
) -> tuple[Tensor, list[str]]:
    need(frame, name, _names(label), "label")
    if task == "regression":
        return torch.from_numpy(matrix(frame, _names(label), name)), []
    if task != "classification":
        raise ConfigError(f"task={task!r}: must be classification or regression")
    if len(_names(label)) != 1:
        raise ConfigError("label: classification takes one column")
    codes, classes = class_codes(frame[_names(label)[0]], name, unlabelled=unlabelled)
    return torch.from_numpy(codes), classes


def _add_masks(data: Data, frame: pl.DataFrame, split: str, name: str) -> None:
    need(frame, name, [split], "split")
    parts = frame[split].cast(pl.String)
    known = parts.is_in(PARTS) | parts.is_null() | (parts == "")
    refuse_rows(~known, name, f"column {split!r} is not train, valid, test or empty", "correct it", parts)
    for part, mask in zip(PARTS, ("train_mask", "val_mask", "test_mask"), strict=True):
        data[mask] = torch.from_numpy((parts == part).fill_null(False).to_numpy().copy())
