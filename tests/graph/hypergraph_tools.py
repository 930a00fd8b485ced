"""Small hypergraphs of any kind, and their dense matrices."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from graphrec.graph.hypergraph import Incidence
from graphrec.pipelines.hypergraphs import Hypergraph, from_edge_lists


@st.composite
def incidences(draw: st.DrawFn, weighted: bool | None = None) -> Incidence:
    """One vertex, no hyperedge, empty hyperedges, isolated vertices and, perhaps, weights."""
    vertices, edges = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    torch.manual_seed(draw(st.integers(0, 999)))
    dense = torch.rand(vertices, edges) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    pairs = dense.nonzero().T
    pairs = pairs[:, torch.randperm(pairs.shape[1])]
    if not (draw(st.booleans()) if weighted is None else weighted):
        return Incidence.from_pairs(pairs, vertices, edges)
    weight, edge_weight = torch.rand(pairs.shape[1]) + 0.1, torch.rand(edges) + 0.1
    return Incidence.from_pairs(pairs, vertices, edges, weight, edge_weight)


def dense(incidence: Incidence) -> tuple[Tensor, Tensor]:
    """H (N, M) and the diagonal of W (M,), float64."""
    graph = incidence.to_edges
    h = torch.zeros(incidence.num_vertices, incidence.num_edges, dtype=torch.float64)
    values = torch.ones(graph.edges) if incidence.weight is None else incidence.weight
    h[graph.index.long(), graph.row.long()] = values.double()
    w = torch.ones(incidence.num_edges) if incidence.edge_weight is None else incidence.edge_weight
    return h, w.double()


def pairs_of(incidence: Incidence) -> Tensor:
    """Vertex and hyperedge of every incidence, int64 (2, K)."""
    return torch.stack([incidence.to_edges.index, incidence.to_edges.row]).long()


def clubs(per_class: int = 60, classes: int = 3, features: int = 30, seed: int = 0) -> Hypergraph:
    """Hyperedges within a class, features that hardly tell it: labels of few must be passed on.

    The last vertex is in no hyperedge.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        y = torch.arange(classes).repeat_interleave(per_class)
        signal = torch.nn.functional.one_hot(y, classes).float() @ torch.randn(classes, features)
        x = 0.35 * signal + torch.randn(len(y), features)
        edges = [
            (torch.randperm(per_class)[:6] + c * per_class).tolist()
            for c in range(classes)
            for _ in range(40)
        ]
    edges = [[v for v in edge if v != len(y) - 1] for edge in edges]
    return from_edge_lists(x, edges, y, name="clubs")
