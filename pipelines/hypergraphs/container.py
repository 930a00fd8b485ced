"""A hypergraph as its list of incidences."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphrec.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class Hypergraph:
    """N vertices with features and classes, M hyperedges, K incidences.

    A hyperedge may hold no vertex and a vertex may be in no hyperedge; `with_singletons` gives such a vertex
    one of its own, as LightHGNN's protocol has it.

    Attributes:
        x: Vertex features, float32 (N, F).
        incidence: Vertex and hyperedge of every incidence, int64 (2, K), sorted by hyperedge, then vertex; no
            pair twice. PyG calls it ``hyperedge_index``.
        num_edges: M.
        y: Class of every vertex, int64 (N,), -1 where it has none; or None.
        weight: Weight of every incidence, float32 (K,), or None for ones.
        edge_weight: Weight of every hyperedge, float32 (M,), or None for ones.
        classes: The classes, text or numbers as the data have them.
        name: What messages call it.

    Raises:
        DataError: An incidence names a missing vertex or hyperedge or occurs twice, a number is not finite, a
            class has no text, or types or sizes do not match.
    """

    x: Tensor
    incidence: Tensor
    num_edges: int
    y: Tensor | None = None
    weight: Tensor | None = None
    edge_weight: Tensor | None = None
    classes: tuple[str | int, ...] = ()
    name: str = "hypergraph"
    edge_ptr: Tensor = field(init=False)

    def __post_init__(self) -> None:
        _check_types(self)
        _check_sizes(self)
        self._check_range()
        key = self.incidence[1] * max(self.num_vertices, 1) + self.incidence[0]
        if bool((key.diff() <= 0).any()):
            order = torch.argsort(key)
            twice = (key[order].diff() == 0).nonzero()
            if len(twice):
                vertex, edge = self.incidence[:, order[twice[0, 0]]].tolist()
                raise DataError(
                    f"{self.name}: vertex {vertex} is in hyperedge {edge} twice; keep one incidence"
                )
            object.__setattr__(self, "incidence", self.incidence[:, order])
            if self.weight is not None:
                object.__setattr__(self, "weight", self.weight[order])
        sizes = torch.bincount(self.incidence[1], minlength=self.num_edges)
        object.__setattr__(self, "edge_ptr", torch.nn.functional.pad(sizes.cumsum(0), (1, 0)))

    def _check_range(self) -> None:
        for row, (what, count) in enumerate((("vertex", self.num_vertices), ("hyperedge", self.num_edges))):
            one = self.incidence[row]
            bad = ((one < 0) | (one >= count)).nonzero().flatten()
            if len(bad):
                raise DataError(
                    f"{self.name}: incidence {int(bad[0])}: {what} {int(one[bad[0]])} is missing; there "
                    f"are {count}, numbered from 0"
                )

    def __repr__(self) -> str:
        return (
            f"Hypergraph({self.name!r}, {self.num_vertices} vertices, {self.num_edges} hyperedges, "
            f"{self.incidence.shape[1]} incidences, {self.num_features} features, {self.num_classes} classes)"
        )

    @property
    def num_vertices(self) -> int:
        """N."""
        return len(self.x)

    @property
    def num_features(self) -> int:
        """F."""
        return self.x.shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes."""
        return len(self.classes)

    @property
    def edge_sizes(self) -> Tensor:
        """Vertices in each hyperedge, int64 (M,)."""
        return self.edge_ptr.diff()

    @property
    def vertex_degrees(self) -> Tensor:
        """Hyperedges around each vertex, int64 (N,)."""
        return torch.bincount(self.incidence[0], minlength=self.num_vertices)

    def with_singletons(self) -> Hypergraph:
        """With a hyperedge of its own for every vertex that is in none, after the others."""
        alone = (self.vertex_degrees == 0).nonzero().flatten()
        new = torch.stack([alone, self.num_edges + torch.arange(len(alone))])
        return replace(
            self,
            incidence=torch.cat([self.incidence, new], dim=1),
            num_edges=self.num_edges + len(alone),
            weight=_with_ones(self.weight, len(alone)),
            edge_weight=_with_ones(self.edge_weight, len(alone)),
        )

    def without_empty_edges(self) -> Hypergraph:
        """Without the hyperedges that hold no vertex; the others close ranks."""
        kept = self.edge_sizes > 0
        number = kept.cumsum(0) - 1
        return replace(
            self,
            incidence=torch.stack([self.incidence[0], number[self.incidence[1]]]),
            num_edges=int(kept.sum()),
            edge_weight=None if self.edge_weight is None else self.edge_weight[kept],
        )

    def keep_vertices(self, kept: Any) -> Hypergraph:
        """These vertices, renumbered in the given order, with their incidences alone.

        Hyperedges that lose all their vertices disappear.

        Args:
            kept: Indices (n,) without repetition, or a mask (N,).

        Raises:
            DataError: They are neither, or name a vertex twice or one that is missing.
        """
        index = self._vertices(kept)
        number = torch.full((self.num_vertices,), -1)
        number[index] = torch.arange(len(index))
        stays = number[self.incidence[0]] >= 0
        smaller = replace(
            self,
            x=self.x[index],
            incidence=torch.stack([number[self.incidence[0, stays]], self.incidence[1, stays]]),
            y=None if self.y is None else self.y[index],
            weight=None if self.weight is None else self.weight[stays],
        )
        return smaller.without_empty_edges()

    def _vertices(self, kept: Any) -> Tensor:
        """Numbers of vertices, int64 (n,), from these or from a mask."""
        index = torch.as_tensor(kept)
        index = index if index.numel() else index.long()
        if index.dtype == torch.bool and index.shape == (self.num_vertices,):
            return index.nonzero().flatten()
        wrong = index.dtype == torch.bool or index.is_floating_point() or index.dim() != 1
        if not wrong and len(index):
            inside = 0 <= int(index.min()) <= int(index.max()) < self.num_vertices
            wrong = not inside or len(index.unique()) < len(index)
        if wrong:
            raise DataError(
                f"{self.name}: kept should be a mask of all {self.num_vertices} vertices, or different "
                f"numbers from 0 to {self.num_vertices - 1}"
            )
        return index.long()

    def edge_lists(self) -> list[list[int]]:
        """Vertices of each hyperedge, the form that DeepHypergraph (``dhg.Hypergraph(N, lists)``) takes."""
        return [part.tolist() for part in torch.split(self.incidence[0], self.edge_sizes.tolist())]

    def to_pyg(self) -> Data:
        """A PyG `Data` with x, hyperedge_index (2, K), num_hyperedges, y, and weights where there are any."""
        data = Data(x=self.x, hyperedge_index=self.incidence, num_hyperedges=self.num_edges)
        for key, values in (
            ("y", self.y),
            ("hyperedge_weight", self.edge_weight),
            ("incidence_weight", self.weight),
        ):
            if values is not None:
                data[key] = values
        return data

    @classmethod
    def from_pyg(
        cls, data: Data, *, classes: tuple[str | int, ...] = (), name: str = "hypergraph"
    ) -> Hypergraph:
        """From a PyG `Data` as `to_pyg` makes it, or as PyG's hypergraph data sets have it."""
        pairs = data.get("hyperedge_index")
        pairs = data.edge_index if pairs is None else pairs
        if data.x is None or pairs is None:
            raise DataError(f"{name}: needs x and hyperedge_index")
        count = data.get("num_hyperedges")
        count = int(pairs[1].max()) + 1 if count is None and pairs.numel() else int(count or 0)
        y = data.y if isinstance(data.y, Tensor) else None
        if y is not None and not classes:
            classes = tuple(range(int(y.max()) + 1)) if len(y) else ()
        return cls(
            data.x.float(),
            pairs.long(),
            count,
            y,
            data.get("incidence_weight"),
            data.get("hyperedge_weight"),
            classes,
            name,
        )


def _with_ones(weight: Tensor | None, count: int) -> Tensor | None:
    return None if weight is None else torch.cat([weight, torch.ones(count)])


def _check_types(graph: Hypergraph) -> None:
    """Refuse what is no tensor, and fractions where only whole numbers have a meaning."""
    for what in ("x", "incidence", "y", "weight", "edge_weight"):
        values, whole = getattr(graph, what), what in ("incidence", "y")
        if values is None and what not in ("x", "incidence"):
            continue
        if not isinstance(values, Tensor):
            raise DataError(f"{graph.name}: {what} should be a tensor, found {type(values).__name__}")
        if whole and (values.is_floating_point() or values.dtype == torch.bool):
            raise DataError(f"{graph.name}: {what} should be whole numbers, found {values.dtype}")
        if values.layout != torch.strided or values.is_complex():
            raise DataError(
                f"{graph.name}: {what} should be dense real numbers, found {values.dtype}, {values.layout}"
            )
    if not isinstance(graph.num_edges, int) or graph.num_edges < 0:
        raise DataError(f"{graph.name}: num_edges should be a whole number, found {graph.num_edges!r}")
    if isinstance(graph.classes, str) or len(set(graph.classes)) < len(graph.classes):
        raise DataError(f"{graph.name}: classes should be different texts, found {graph.classes!r}")
    if graph.y is None:
        return
    if graph.y.dim() != 1:
        raise DataError(f"{graph.name}: y should be of shape (vertices,), found {tuple(graph.y.shape)}")
    if graph.classes and len(graph.y) and int(graph.y.max()) >= len(graph.classes):
        vertex = int(graph.y.argmax())
        raise DataError(
            f"{graph.name}: vertex {vertex} is of class {int(graph.y[vertex])}, and classes names "
            f"{len(graph.classes)}"
        )


def _check_sizes(graph: Hypergraph) -> None:
    if graph.x.dim() != 2 or graph.incidence.dim() != 2 or len(graph.incidence) != 2:
        raise DataError(
            f"{graph.name}: x {tuple(graph.x.shape)} must be (vertices, features), incidence "
            f"{tuple(graph.incidence.shape)} must be (2, incidences)"
        )
    counts = {
        "y": (graph.y, len(graph.x), "vertices"),
        "weight": (graph.weight, graph.incidence.shape[1], "incidences"),
        "edge_weight": (graph.edge_weight, graph.num_edges, "hyperedges"),
    }
    for what, (values, rows, of) in counts.items():
        if values is not None and len(values) != rows:
            raise DataError(f"{graph.name}: {what} has {len(values)} values for {rows} {of}")
    for what, numbers in (("x", graph.x), ("weight", graph.weight), ("edge_weight", graph.edge_weight)):
        if numbers is not None and not bool(torch.isfinite(numbers).all()):
            row = int((~torch.isfinite(numbers)).reshape(len(numbers), -1).any(1).nonzero()[0])
            raise DataError(f"{graph.name}: {what} of row {row} is not finite; fill it or leave it out")
