"""The incidence matrix of a hypergraph, made once and multiplied from both sides.

Every layer of the HGNN family is two products with H, one from vertices to hyperedges and one back, with a
factor per row between them. They are kept apart: H W H^T has an entry for every two vertices that share a
hyperedge, which for 2.2 million incidences can be hundreds of millions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphrec.errors import DataError
from graphrec.kernels import CSR, spmm
from graphrec.pipelines.hypergraphs import Hypergraph


def _power(x: Tensor, exponent: float) -> Tensor:
    """``x ** exponent`` where x is positive, and 0 elsewhere, so that what is empty gives nothing."""
    return torch.where(x > 0, x.clamp(min=torch.finfo(x.dtype).tiny) ** exponent, 0)


@dataclass(frozen=True, eq=False, repr=False)
class Incidence:
    """N vertices, M hyperedges and the K non-zeros of H (N, M), as compressed rows both ways.

    Make it with `of` or `from_pairs`; `to_vertices` and everything that layers need is computed at first use
    and kept.

    Attributes:
        to_edges: H^T: rows are hyperedges, columns vertices.
        weight: Value of every non-zero in the order of ``to_edges``, float32 (K,); None for ones.
        edge_weight: W, float32 (M,); None for ones.
    """

    to_edges: CSR
    weight: Tensor | None = None
    edge_weight: Tensor | None = None

    @classmethod
    def of(cls, graph: Hypergraph | Incidence) -> Incidence:
        """That of a hypergraph; an incidence as it is."""
        if isinstance(graph, Incidence):
            return graph
        return cls.from_pairs(
            graph.incidence, graph.num_vertices, graph.num_edges, graph.weight, graph.edge_weight
        )

    @classmethod
    def from_pairs(
        cls,
        pairs: Tensor,
        num_vertices: int,
        num_edges: int,
        weight: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Incidence:
        """From PyG's ``hyperedge_index``.

        Args:
            pairs: Vertex and hyperedge of every incidence, integers (2, K), in any order. H is a set of
                incidences: without weights a pair that occurs again counts once.
            num_vertices: N.
            num_edges: M.
            weight: (K,), not negative.
            edge_weight: (M,), not negative.

        Raises:
            DataError: A vertex or hyperedge is missing, a weight is negative, sizes do not match, or a
                weighted pair occurs twice.
        """
        _check(pairs, num_vertices, num_edges, weight, edge_weight)
        key = pairs[1].long() * max(num_vertices, 1) + pairs[0].long()
        if bool((key.diff() <= 0).any()):
            order = torch.argsort(key)
            pairs, weight = pairs[:, order], None if weight is None else weight[order]
            first = torch.nn.functional.pad(key[order].diff() > 0, (1, 0), value=True)
            if weight is not None and not bool(first.all()):
                vertex, edge = pairs[:, int((~first).nonzero()[0])].tolist()
                raise DataError(f"vertex {vertex} is in hyperedge {edge} twice with a weight; keep one")
            pairs = pairs[:, first]
        small = max(num_vertices, num_edges, pairs.shape[1]) < 2**31
        vertex, edge = pairs.to(torch.int32 if small else torch.int64)
        to_edges, _ = CSR.from_edges(vertex, edge, num_edges, num_vertices)
        return cls(
            to_edges,
            None if weight is None else weight.float(),
            None if edge_weight is None else edge_weight.float(),
        )

    @property
    def num_vertices(self) -> int:
        """N."""
        return self.to_edges.columns

    @property
    def num_edges(self) -> int:
        """M."""
        return self.to_edges.rows

    def __repr__(self) -> str:
        found = f"{self.num_vertices} vertices, {self.num_edges} hyperedges, {self.to_edges.edges} incidences"
        return f"Incidence({found})"

    @property
    def to_vertices(self) -> CSR:
        """H: rows are vertices, columns hyperedges."""
        return self.to_edges.transpose[0]

    @cached_property
    def _weight_to_vertices(self) -> Tensor | None:
        return None if self.weight is None else self.weight[self.to_edges.transpose[1]]

    @cached_property
    def edge_degree(self) -> Tensor:
        """D_e: the sum of each hyperedge's incidences, float32 (M,)."""
        ones = torch.ones(self.num_vertices, 1, device=self.to_edges.ptr.device)
        return spmm(self.to_edges, ones, self.weight).squeeze(1)

    @cached_property
    def vertex_degree(self) -> Tensor:
        """D_v: the sum of each vertex's incidences times the weight of their hyperedges, float32 (N,)."""
        ones = torch.ones(self.num_edges, device=self.to_edges.ptr.device)
        weights = ones if self.edge_weight is None else self.edge_weight
        return self.scatter(weights.unsqueeze(1)).squeeze(1)

    @cached_property
    def edge_factor(self) -> Tensor:
        """W D_e^-1, (M, 1); 0 for an empty hyperedge."""
        inverse = _power(self.edge_degree, -1)
        return (inverse if self.edge_weight is None else inverse * self.edge_weight).unsqueeze(1)

    @cached_property
    def edge_inverse(self) -> Tensor:
        """D_e^-1, (M, 1); 0 for an empty hyperedge."""
        return _power(self.edge_degree, -1).unsqueeze(1)

    @cached_property
    def vertex_inverse(self) -> Tensor:
        """D_v^-1, (N, 1); 0 for an isolated vertex."""
        return _power(self.vertex_degree, -1).unsqueeze(1)

    @cached_property
    def vertex_inverse_root(self) -> Tensor:
        """D_v^-1/2, (N, 1); 0 for an isolated vertex."""
        return _power(self.vertex_degree, -0.5).unsqueeze(1)

    @cached_property
    def neighbour_inverse_root(self) -> Tensor:
        """UniGCN's d_e^-1/2, (M, 1), where d_e is the mean degree of a hyperedge's vertices that have any.

        1 for an empty hyperedge, as in the official code.
        """
        degree = self.vertex_degree.unsqueeze(1)
        both = spmm(self.to_edges, torch.cat([degree, (degree > 0).to(degree)], dim=1))
        mean = both[:, :1] / both[:, 1:].clamp(min=1)
        return torch.where(mean > 0, _power(mean, -0.5), 1)

    def gather(self, x: Tensor) -> Tensor:
        """H^T X: every hyperedge adds up its vertices, (N, D) to (M, D)."""
        return spmm(self.to_edges, x, None if self.weight is None else self.weight.to(x.dtype))

    def scatter(self, y: Tensor) -> Tensor:
        """H Y: every vertex adds up its hyperedges, (M, D) to (N, D)."""
        weight = self._weight_to_vertices
        return spmm(self.to_vertices, y, None if weight is None else weight.to(y.dtype))

    def edge_mean(self, x: Tensor) -> Tensor:
        """D_e^-1 H^T X: the mean of each hyperedge's vertices, (N, D) to (M, D); 0 for an empty one."""
        return self.gather(x) * self.edge_inverse.to(x.dtype)

    def to(self, device: torch.device | str) -> Incidence:
        """The same on a device."""
        moved = (None if w is None else w.to(device) for w in (self.weight, self.edge_weight))
        return Incidence(self.to_edges.to(device), *moved)


def _check(
    pairs: Tensor, num_vertices: int, num_edges: int, weight: Tensor | None, edge_weight: Tensor | None
) -> None:
    """Raise DataError for what is no hypergraph."""
    if pairs.dim() != 2 or len(pairs) != 2 or pairs.is_floating_point():
        raise DataError(f"incidence must be integers (2, K), got {pairs.dtype} of {tuple(pairs.shape)}")
    for row, (what, count) in enumerate((("vertex", num_vertices), ("hyperedge", num_edges))):
        bad = ((pairs[row] < 0) | (pairs[row] >= count)).nonzero().flatten()
        if len(bad):
            found = f"incidence {int(bad[0])} names {what} {int(pairs[row, bad[0]])}"
            raise DataError(f"{found}; there are {count}, numbered from 0")
    for name, values, size in (
        ("weight", weight, pairs.shape[1]),
        ("edge_weight", edge_weight, num_edges),
    ):
        if values is None:
            continue
        if values.shape != (size,):
            raise DataError(f"{name} has shape {tuple(values.shape)}, must be ({size},)")
        bad = (~(values >= 0)).nonzero().flatten()
        if len(bad):
            raise DataError(f"{name} {int(bad[0])} is {float(values[bad[0]])}, must not be negative")
