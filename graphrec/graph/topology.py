"""Who sends to whom, in the form that the kernels take, with what convolutions derive from it kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphrec.errors import DataError
from graphrec.kernels.graph import CSR


@dataclass(frozen=True, eq=False)
class Topology:
    """The edges of a graph, or of a batch of graphs numbered through, grouped by target.

    Make it once where the graph stays the same, as in full-batch training; the transpose for the backward,
    the self loops and the normalisation of GCN are then computed once as well.

        topology = Topology.of(edge_index, num_nodes)
        model(x, topology)

    Attributes:
        graph: Edges by target: row i of the `CSR` receives.
        order: Which given edge each of its edges is, (E,); ``edge_attr[order]`` follows the graph.
    """

    graph: CSR
    order: Tensor = field(repr=False)

    @classmethod
    def of(cls, edge_index: Tensor | Topology, num_nodes: int) -> Topology:
        """From PyG's ``edge_index``; a topology is passed on.

        Args:
            edge_index: Sources and targets, integers (2, E). An edge may occur twice; then it counts twice.
            num_nodes: N.

        Raises:
            DataError: ``edge_index`` has another shape or dtype, or names a missing node.
        """
        if isinstance(edge_index, Topology):
            if edge_index.num_nodes != num_nodes:
                raise DataError(f"the topology has {edge_index.num_nodes} nodes, the features {num_nodes}")
            return edge_index
        _check(edge_index, num_nodes)
        source, target = edge_index.unbind()
        if bool((target[1:] >= target[:-1]).all()):  # as a GraphSet's batches are, and coalesced edges by row
            ptr = torch.nn.functional.pad(torch.bincount(target, minlength=num_nodes).cumsum(0), (1, 0))
            kind = source.dtype if source.dtype == torch.int32 else torch.int64
            graph = CSR(ptr.to(kind), source.to(kind), num_nodes)
            return cls(graph, torch.arange(graph.edges, device=source.device))
        graph, order = CSR.from_edges(source, target, num_nodes, num_nodes)
        return cls(graph, order)

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.graph.rows

    @property
    def num_edges(self) -> int:
        """E."""
        return self.graph.edges

    @cached_property
    def looped(self) -> CSR:
        """The graph with exactly one loop at every node; loops that were there are replaced by it."""
        graph = self.graph
        with torch.inference_mode(False):
            kept = graph.row != graph.index
            nodes = torch.arange(graph.rows, device=graph.ptr.device, dtype=graph.index.dtype)
            source = torch.cat([graph.index[kept], nodes])
            target = torch.cat([graph.row[kept], nodes])
            return CSR.from_edges(source, target, graph.rows, graph.columns)[0]

    @cached_property
    def gcn_weight(self) -> Tensor:
        """``1 / sqrt(d_i d_j)`` for every edge of `looped`, float32 (E',) (GCN, arXiv:1609.02907, eq. 2)."""
        graph = self.looped
        with torch.inference_mode(False):
            scale = graph.degree.to(torch.float32).rsqrt()  # a loop each: no degree is 0
            return scale[graph.row] * scale[graph.index]

    def to(self, device: torch.device | str) -> Topology:
        """The same edges on a device."""
        return Topology(self.graph.to(device), self.order.to(device))


def _check(edge_index: Tensor, num_nodes: int) -> None:
    if not isinstance(edge_index, Tensor):
        raise DataError(f"edge_index must be a tensor (2, edges), got {type(edge_index).__name__}")
    integers = not (edge_index.is_floating_point() or edge_index.dtype == torch.bool)
    if edge_index.dim() != 2 or len(edge_index) != 2 or not integers:
        raise DataError(
            f"edge_index must be integers of shape (2, edges), got {edge_index.dtype} of "
            f"{tuple(edge_index.shape)}"
        )
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
        edge = int(((edge_index < 0) | (edge_index >= num_nodes)).any(0).nonzero()[0])
        source, target = edge_index[:, edge].tolist()
        raise DataError(
            f"edge {edge} ({source} -> {target}) leads to a missing node; nodes are 0 to {num_nodes - 1}"
        )


def _flatten(topology: Topology) -> tuple[list[Tensor], int]:
    back, order = topology.graph.transpose
    graph = topology.graph
    return [graph.ptr, graph.index, topology.order, back.ptr, back.index, order], graph.columns


_NAMES = ("ptr", "index", "order", "back_ptr", "back_index", "back_order")


def _flatten_with_names(topology: Topology) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], int]:
    tensors, columns = _flatten(topology)
    return [(pytree.GetAttrKey(name), one) for name, one in zip(_NAMES, tensors, strict=True)], columns


def _unflatten(tensors: Iterable[Any], columns: Any) -> Topology:
    ptr, index, order, back_ptr, back_index, back_order = tensors
    back = CSR.trusted(back_ptr, back_index, ptr.shape[0] - 1)
    graph = CSR.trusted(ptr, index, columns).with_transpose(back, back_order)
    _ = graph.row  # made now, so that a compiled graph finds it
    return Topology(graph, order)


# A batch that holds a topology moves to a device with it.
pytree.register_pytree_node(
    Topology,
    _flatten,
    _unflatten,
    serialized_type_name="graphrec.graph.topology.Topology",
    flatten_with_keys_fn=_flatten_with_names,
)
