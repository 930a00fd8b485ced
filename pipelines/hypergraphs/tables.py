"""Hypergraphs from tables: one of incidences, one of vertices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from graphrec.errors import ConfigError

from ..frames import class_codes, id_column, matrix, need, number_columns, positions, read_frame, refuse_rows
from .container import Hypergraph


def read_incidence(
    incidence: Any,
    vertices: Any,
    *,
    vertex: str = "vertex",
    edge: str = "edge",
    weight: str | None = None,
    label: str | None = "label",
    features: Sequence[str] | None = None,
    edges: Any = None,
    edge_weight: str | None = None,
    unlabelled: bool = False,
) -> Hypergraph:
    """A hypergraph from the table of who is in which hyperedge.

    Args:
        incidence: One row an incidence: a vertex, a hyperedge and perhaps a weight. Anything `open_table`
            takes.
        vertices: One row a vertex: its id, features and label. Their order is that of the vertices.
        vertex, edge: Names of the id columns; ids are whole numbers from 0 up, or text.
        weight: Column of ``incidence`` with its weight.
        label: Column of ``vertices`` with its class; None for no labels.
        features: Columns of ``vertices`` that become ``x``; None takes all numbers except id and label.
            Without any, ``x`` is a constant 1.
        edges: One row a hyperedge, where some are empty or have weights; None takes the hyperedges that
            occur, in the order of their first row.
        edge_weight: Column of ``edges`` with its weight.
        unlabelled: Whether vertices may lack a label; their class is -1.

    Raises:
        ConfigError: ``features`` is no list, or ``edge_weight`` given without ``edges``.
        SchemaError: A column is missing or of a wrong type.
        DataError: An incidence names a missing vertex or occurs twice, an id is negative, a label is missing,
            or a number is not finite; names table and row.
    """
    if isinstance(features, str):
        raise ConfigError(f"features={features!r}: must be a list of columns, such as [{features!r}]")
    if edge_weight and edges is None:
        raise ConfigError(f"edge_weight={edge_weight!r}: is a column of edges; give edges as well")
    frame, name = read_frame(incidence, "incidence")
    known, vertex_name = read_frame(vertices, "vertices")
    need(frame, name, [vertex, edge] + ([weight] if weight else []))
    ids = id_column(known, vertex, vertex_name)
    refuse_rows(~ids.is_first_distinct(), vertex_name, "this vertex has an earlier row", "keep one", ids)
    members, owners = id_column(frame, vertex, name), id_column(frame, edge, name)
    at = positions(members, ids)
    why = f"column {vertex!r} names a vertex that {vertex_name} does not have"
    refuse_rows(at.is_null(), name, why, "add the vertex or drop the row", members)
    edge_ids, edge_weights = owners.unique(maintain_order=True), None
    if edges is not None:
        listed, edge_name = read_frame(edges, "edges")
        edge_ids = id_column(listed, edge, edge_name)
        refuse_rows(
            ~edge_ids.is_first_distinct(),
            edge_name,
            "this hyperedge has an earlier row",
            "keep one",
            edge_ids,
        )
        why = f"column {edge!r} names a hyperedge that {edge_name} does not have"
        refuse_rows(positions(owners, edge_ids).is_null(), name, why, "add it or drop the row", owners)
        if edge_weight:
            edge_weights = torch.from_numpy(matrix(listed, [edge_weight], edge_name)[:, 0])
    pairs = frame.select(at.alias("v"), positions(owners, edge_ids).alias("e"))
    refuse_rows(~pairs.to_struct().is_first_distinct(), name, "an earlier row says the same", "keep one")
    chosen = number_columns(known, [vertex, label or ""]) if features is None else list(features)
    x = matrix(known, chosen, vertex_name) if chosen else np.ones((known.height, 1), np.float32)
    y, classes = None, list[str | int]()
    if label is not None:
        need(known, vertex_name, [label], "label")
        codes, classes = class_codes(known[label], vertex_name, unlabelled=unlabelled)
        y = torch.from_numpy(codes)
    return Hypergraph(
        torch.from_numpy(x),
        torch.from_numpy(pairs.to_numpy().astype(np.int64).T.copy()),
        len(edge_ids),
        y,
        torch.from_numpy(matrix(frame, [weight], name)[:, 0]) if weight else None,
        edge_weights,
        tuple(classes),
        name,
    )
