"""What becomes of repeated edges, loops and directions; said once, for every reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch_geometric.utils import coalesce

from graphrec.errors import ConfigError, DataError

_CHOICES = {"duplicates": ("merge", "keep", "refuse"), "self_loops": ("keep", "drop", "refuse")}


@dataclass(frozen=True)
class EdgePolicy:
    """How the edges of a file become the edges of a graph.

    Attributes:
        undirected: Whether every edge also gets its reverse; False leaves the directions of the file.
        duplicates: ``"merge"`` makes edges with the same ends one, with the mean of their features;
            ``"keep"`` leaves a multigraph, in the order of the file; ``"refuse"`` raises.
        self_loops: Edges from a node to itself: ``"keep"``, ``"drop"`` or ``"refuse"``.

    Raises:
        ConfigError: An unknown choice, or kept duplicates of an undirected graph (both directions may be
            listed, and would then count twice).
    """

    undirected: bool = False
    duplicates: Literal["merge", "keep", "refuse"] = "merge"
    self_loops: Literal["keep", "drop", "refuse"] = "keep"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"EdgePolicy: {name}={getattr(self, name)!r}; must be one of {', '.join(choices)}"
                )
        if self.undirected and self.duplicates == "keep":
            raise ConfigError("EdgePolicy: undirected=True needs duplicates='merge' or 'refuse', not 'keep'")


AS_LISTED = EdgePolicy()
"""The directions of the file, repeated edges merged."""
UNDIRECTED = EdgePolicy(undirected=True)
"""Both directions of every edge, once."""
SIMPLE = EdgePolicy(undirected=True, self_loops="drop")
"""Both directions of every edge, once, and no loops."""


def clean_edges(
    edge_index: Tensor,
    num_nodes: int,
    edge_attr: Tensor | None = None,
    policy: EdgePolicy = AS_LISTED,
    name: str = "edges",
) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Apply a policy.

    Args:
        edge_index: int64 (2, E).
        num_nodes: N.
        edge_attr: float (E, D), or None.
        policy: What to do.
        name: What messages call the edges.

    Returns:
        edge_index (2, E'), edge_attr (E', D) or None, and a line for each change. Merged edges are sorted by
        source and target.

    Raises:
        DataError: The policy refuses what was found; names the row, from 1.
    """
    notes: list[str] = []
    edge_index, edge_attr = _loops(edge_index, edge_attr, policy, name, notes)
    if policy.duplicates == "refuse":
        _refuse_duplicates(edge_index, num_nodes, name)
    if policy.undirected:  # a loop, and an edge listed both ways, is merged again below
        edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        edge_attr = None if edge_attr is None else torch.cat([edge_attr, edge_attr])
    if policy.duplicates == "keep":
        return edge_index, edge_attr, tuple(notes)
    if policy.duplicates == "merge" and not policy.undirected:
        repeated = edge_index.shape[1] - len(torch.unique(edge_index[0] * num_nodes + edge_index[1]))
        notes += [f"{repeated} repeated edges merged"] * bool(repeated)
    if edge_attr is None:
        return coalesce(edge_index, num_nodes=num_nodes), None, tuple(notes)
    merged, attr = coalesce(edge_index, edge_attr, num_nodes=num_nodes, reduce="mean")
    return merged, attr, tuple(notes)


def _loops(
    edge_index: Tensor, edge_attr: Tensor | None, policy: EdgePolicy, name: str, notes: list[str]
) -> tuple[Tensor, Tensor | None]:
    loop = edge_index[0] == edge_index[1]
    if policy.self_loops == "keep" or not bool(loop.any()):
        return edge_index, edge_attr
    if policy.self_loops == "refuse":
        row = int(loop.nonzero()[0])
        raise DataError(
            f"{name}: row {row + 1}: node {int(edge_index[0, row])} has an edge to itself; remove it, or "
            "read with self_loops='drop' or 'keep'"
        )
    notes.append(f"{int(loop.sum())} self loops dropped")
    return edge_index[:, ~loop], None if edge_attr is None else edge_attr[~loop]


def _refuse_duplicates(edge_index: Tensor, num_nodes: int, name: str) -> None:
    key = edge_index[0] * num_nodes + edge_index[1]
    order = torch.argsort(key, stable=True)
    again = (key[order].diff() == 0).nonzero().flatten()
    if len(again):
        row = int(order[again + 1].min())
        raise DataError(
            f"{name}: row {row + 1}: an earlier row has the same two ends; remove one, or read with "
            "duplicates='merge' or 'keep'"
        )
