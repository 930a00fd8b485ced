"""What the trainer is fed: batches of graphs cut out of sorted edges, or one graph in each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.kernels.graph import CSR
from graphrec.pipelines.graphs import GraphSet
from graphrec.pipelines.ranges import ranges

from .rows import Features
from .topology import Topology


class GraphBatch(NamedTuple):
    """Graphs numbered through, or nodes of one graph.

    Attributes:
        x: Node features (N, F), sparse ones for a single graph, or the cached history of a frozen backbone
            (N, L, D).
        topology: Their edges; None with a cached history.
        batch: Graph of every node, ascending, int64 (N,).
        ptr: First node of every graph and N, int64 (B + 1,).
        labels: Class of every graph, int64 (B,), or of the nodes in ``nodes``.
        nodes: Which nodes are asked for in tasks on nodes; None in tasks on graphs.
    """

    x: Features
    topology: Topology | None
    batch: Tensor
    ptr: Tensor
    labels: Tensor
    nodes: Tensor | None = None


class GraphBatches:
    """A `BatchSource` of the graphs of a set.

    Edges are sorted by target once, and once by source for the backward; a batch of either is then a
    concatenation of pieces, so no batch is ever sorted.

    Args:
        graphs: The set.
        batch_size: Graphs in a batch.
        shuffle: Whether their order changes with every epoch.
        seed: Of the orders.
        history: (nodes of the set, L, D) activations of a frozen backbone, which take the place of features
            and edges.
    """

    ragged = "another number of nodes and edges"
    """Why `training.compiled` refuses it."""

    def __init__(
        self,
        graphs: GraphSet,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        history: Tensor | None = None,
    ) -> None:
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.steps = (len(graphs) + batch_size - 1) // batch_size
        self.y, self.node_ptr, self.edge_ptr = graphs.y, graphs.node_ptr, graphs.edge_ptr
        self.x, self.cached = (graphs.x, False) if history is None else (history, True)
        if not self.cached:
            self._sort(graphs)

    def _sort(self, graphs: GraphSet) -> None:
        shift = torch.repeat_interleave(graphs.node_ptr[:-1], graphs.edge_ptr.diff())
        whole, nodes = graphs.edge_index + shift, len(graphs.x)
        graph, order = CSR.from_edges(whole[0], whole[1], nodes, nodes)
        back, back_order = graph.transpose
        # Numbered inside their own graph again, to be shifted to where a batch puts it; sorting by node kept
        # every graph's edges together.
        first = torch.repeat_interleave(graphs.edge_ptr[:-1], graphs.edge_ptr.diff())
        self.source, self.target = graph.index - shift, graph.row - shift
        self.back_target, self.back_order = back.index - shift, back_order - first
        self.order, self.degree, self.back_degree = order - first, graph.degree, back.degree

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[GraphBatch]:
        """The batches of an epoch, from a step on."""
        chosen = torch.arange(len(self.y))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            chosen = torch.randperm(len(self.y), generator=generator)
        for step in range(start_step, self.steps):
            yield self.cut(chosen[step * self.batch_size : (step + 1) * self.batch_size])

    def cut(self, chosen: Tensor) -> GraphBatch:
        """These graphs, int64 (B,), in this order."""
        nodes, ptr = ranges(self.node_ptr, chosen)
        batch = torch.repeat_interleave(torch.arange(len(chosen)), ptr.diff(), output_size=len(nodes))
        topology = None if self.cached else self._topology(chosen, nodes, ptr)
        return GraphBatch(self.x.index_select(0, nodes), topology, batch, ptr, self.y[chosen])

    def _topology(self, chosen: Tensor, nodes: Tensor, node_ptr: Tensor) -> Topology:
        edges, ptr = ranges(self.edge_ptr, chosen)
        node = torch.repeat_interleave(node_ptr[:-1], ptr.diff(), output_size=len(edges))
        edge = torch.repeat_interleave(ptr[:-1], ptr.diff(), output_size=len(edges))
        graph = CSR.trusted(
            _ends(self.degree.index_select(0, nodes)),
            self.source.index_select(0, edges) + node,
            len(nodes),
            self.target.index_select(0, edges) + node,
        )
        back = CSR.trusted(
            _ends(self.back_degree.index_select(0, nodes)),
            self.back_target.index_select(0, edges) + node,
            len(nodes),
        )
        graph = graph.with_transpose(back, self.back_order.index_select(0, edges) + edge)
        return Topology(graph, self.order.index_select(0, edges) + edge)


class FullBatch:
    """A `BatchSource` of one step: a graph, of whose nodes some are asked for.

    Args:
        x: (N, F), dense or sparse, or a cached history (N, L, D).
        topology: Its edges.
        nodes: Which nodes, int64 (n,).
        labels: Their classes, int64 (n,).
        steps: Optimiser steps in an epoch; between epochs the trainer evaluates.
    """

    def __init__(
        self, x: Features, topology: Topology | None, nodes: Tensor, labels: Tensor, *, steps: int = 1
    ) -> None:
        batch, ptr = torch.zeros(len(x), dtype=torch.int64), torch.tensor([0, len(x)])
        self.steps, self.batch = steps, GraphBatch(x, topology, batch, ptr, labels, nodes)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[GraphBatch]:
        """The one batch, so many times."""
        for _ in range(start_step, self.steps):
            yield self.batch


def _ends(degree: Tensor) -> Tensor:
    return torch.nn.functional.pad(degree.cumsum(0), (1, 0))
