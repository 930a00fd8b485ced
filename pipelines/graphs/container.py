"""Many graphs in a few long tensors: a batch is cut out of them without a step per graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, overload

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from graphrec.errors import ConfigError, DataError

from ..item_index import item_index
from ..ranges import ranges


@dataclass(frozen=True, eq=False, repr=False)
class GraphSet(Sequence[Data]):
    """Graphs with one feature width, side by side: N nodes, E edges and G graphs in all.

    A sequence of PyG's `Data` (``len``, indexing, iteration), and therefore a data set for PyG's own loader;
    `batch` and `loader` give the same batches many times faster.

    Attributes:
        x: Node features, float32 (N, F).
        edge_index: Source and target of every edge, int64 (2, E), numbered from 0 in each graph.
        node_ptr: Graph ``g`` has the nodes ``node_ptr[g] … node_ptr[g + 1] - 1``; int64 (G + 1,).
        edge_ptr: Likewise its edges, int64 (G + 1,).
        y: Class of every graph, int64 (G,), or targets, float32 (G, T).
        edge_attr: Edge features, float32 (E, D), or None.
        classes: The classes, text or numbers as the data have them, in the order of their codes; empty for
            regression.
        name: What messages call it.
        notes: What reading changed, such as edges that were merged.

    Raises:
        DataError: An edge leads out of its graph, a feature is not finite, or the sizes do not match.
    """

    x: Tensor
    edge_index: Tensor
    node_ptr: Tensor
    edge_ptr: Tensor
    y: Tensor
    edge_attr: Tensor | None = None
    classes: tuple[str | int, ...] = ()
    name: str = "graphs"
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_edges(self)
        for what, values in (("node", self.x), ("edge", self.edge_attr)):
            if values is not None and not bool(torch.isfinite(values).all()):
                row = int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0])
                ptr = self.node_ptr if what == "node" else self.edge_ptr
                graph = int(torch.searchsorted(ptr, row, right=True)) - 1
                raise DataError(
                    f"{self.name}: graph {graph}: a feature of {what} {row - int(ptr[graph])} is not finite; "
                    "fill it or leave the feature out"
                )

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @overload
    def __getitem__(self, index: int) -> Data: ...
    @overload
    def __getitem__(self, index: slice) -> GraphSet: ...  # type: ignore[overload-cannot-match]
    def __getitem__(self, index: Any) -> Any:
        """One graph as `Data`, or those of a slice, list, mask or tensor as a `GraphSet`."""
        if not isinstance(index, Integral):  # numpy's integers are some
            return self.select(index)
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"graph {index} of {len(self)}")
        g = index % len(self)
        nodes = slice(int(self.node_ptr[g]), int(self.node_ptr[g + 1]))
        edges = slice(int(self.edge_ptr[g]), int(self.edge_ptr[g + 1]))
        data = Data(x=self.x[nodes], edge_index=self.edge_index[:, edges], y=self.y[g : g + 1])
        if self.edge_attr is not None:
            data.edge_attr = self.edge_attr[edges]
        return data

    def __iter__(self) -> Iterator[Data]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        labels = (
            f"{len(self.classes)} classes" if self.classes else f"targets of shape {tuple(self.y.shape[1:])}"
        )
        return (
            f"GraphSet({self.name!r}, {len(self)} graphs, {len(self.x)} nodes, {self.edge_index.shape[1]} "
            f"edges, {self.num_features} features, {labels})"
        )

    @property
    def num_features(self) -> int:
        """F, the width of the node features."""
        return self.x.shape[1]

    @property
    def num_edge_features(self) -> int:
        """D, the width of the edge features; 0 without."""
        return 0 if self.edge_attr is None else self.edge_attr.shape[1]

    @property
    def num_classes(self) -> int:
        """How many classes, or how many targets in regression."""
        return len(self.classes) if self.classes else int(self.y[:1].numel())

    @property
    def sizes(self) -> Tensor:
        """Nodes of each graph, int64 (G,)."""
        return self.node_ptr.diff()

    def select(self, index: Any) -> GraphSet:
        """These graphs, in this order, as a set of their own."""
        chosen = item_index(index, len(self), "graph")
        nodes, node_ptr = ranges(self.node_ptr, chosen)
        edges, edge_ptr = ranges(self.edge_ptr, chosen)
        return replace(
            self,
            x=self.x[nodes],
            edge_index=self.edge_index[:, edges],
            node_ptr=node_ptr,
            edge_ptr=edge_ptr,
            y=self.y[chosen],
            edge_attr=None if self.edge_attr is None else self.edge_attr[edges],
        )

    def batch(self, index: Any = None) -> Batch:
        """These graphs (all without an index) as one disconnected graph.

        Returns:
            A PyG batch, equal to ``Batch.from_data_list([self[i] for i in index])``: x (n, F), edge_index (2,
            e) numbered through, y (g,) or (g, T), batch (n,) and ptr (g + 1,).
        """
        chosen = item_index(slice(None) if index is None else index, len(self), "graph")
        nodes, node_ptr = ranges(self.node_ptr, chosen)
        edges, edge_ptr = ranges(self.edge_ptr, chosen)
        shift = torch.repeat_interleave(node_ptr[:-1], edge_ptr.diff())
        batch = Batch(
            _base_cls=Data, x=self.x[nodes], edge_index=self.edge_index[:, edges] + shift, y=self.y[chosen]
        )
        graphs = torch.arange(len(chosen) + 1)
        slices, steps = {"x": node_ptr, "edge_index": edge_ptr, "y": graphs}, {"edge_index": node_ptr[:-1]}
        if self.edge_attr is not None:
            batch.edge_attr, slices["edge_attr"] = self.edge_attr[edges], edge_ptr
        batch.batch = torch.repeat_interleave(graphs[:-1], node_ptr.diff())
        batch.ptr = node_ptr
        # What Batch.from_data_list records, so that batch[i] and to_data_list() work.
        batch._num_graphs, batch._slice_dict = len(chosen), slices
        batch._inc_dict = {key: steps.get(key, torch.zeros(len(chosen), dtype=torch.int64)) for key in slices}
        return batch

    def loader(
        self, batch_size: int, *, shuffle: bool = False, seed: int = 0, drop_last: bool = False
    ) -> GraphLoader:
        """Batches of so many graphs; see `GraphLoader`."""
        return GraphLoader(self, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)

    @classmethod
    def from_data_list(
        cls,
        graphs: Sequence[Data],
        *,
        classes: Sequence[str] | None = None,
        labels: bool = True,
        name: str = "graphs",
    ) -> GraphSet:
        """From PyG's `Data`, or a PyG data set; see `graphrec.pipelines.graphs.from_pyg`."""
        from .pyg_graphs import from_pyg

        return from_pyg(graphs, classes=classes, labels=labels, name=name)


class GraphLoader:
    """Goes over a `GraphSet` in batches; each pass shuffles anew, and pass k of one seed is always the same.

    Args:
        graphs: The set.
        batch_size: Graphs in a batch.
        shuffle: Whether their order changes with every pass. Many files are sorted by label.
        seed: Of the orders.
        drop_last: Whether a last, smaller batch is left out.

    Raises:
        ConfigError: ``batch_size`` is not positive.
    """

    def __init__(
        self,
        graphs: GraphSet,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1")
        self.graphs, self.batch_size, self.shuffle = graphs, batch_size, shuffle
        self.seed, self.drop_last, self.epoch = seed, drop_last, 0

    def __len__(self) -> int:
        extra = 0 if self.drop_last else self.batch_size - 1
        return (len(self.graphs) + extra) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        order = torch.arange(len(self.graphs))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(self.graphs), generator=generator)
        self.epoch += 1
        for i in range(len(self)):
            yield self.graphs.batch(order[i * self.batch_size : (i + 1) * self.batch_size])


def _check_sizes(graphs: GraphSet) -> None:
    expected = {
        "x": (graphs.x, int(graphs.node_ptr[-1])),
        "edge_index": (graphs.edge_index.t(), int(graphs.edge_ptr[-1])),
        "edge_ptr": (graphs.edge_ptr, len(graphs) + 1),
        "y": (graphs.y, len(graphs)),
    }
    if graphs.edge_attr is not None:
        expected["edge_attr"] = (graphs.edge_attr, int(graphs.edge_ptr[-1]))
    for what, (values, rows) in expected.items():
        if len(values) != rows:
            raise DataError(f"{graphs.name}: {what} has {len(values)} rows; the other parts say {rows}")
    if graphs.x.dim() != 2:
        raise DataError(f"{graphs.name}: x has shape {tuple(graphs.x.shape)}; it must be (nodes, features)")
    empty = (graphs.node_ptr.diff() < 1).nonzero().flatten()
    if len(empty):
        raise DataError(f"{graphs.name}: graph {int(empty[0])} has no nodes; leave it out")


def _check_edges(graphs: GraphSet) -> None:
    if not graphs.edge_index.numel():
        return
    limit = torch.repeat_interleave(graphs.sizes, graphs.edge_ptr.diff())
    bad = ((graphs.edge_index < 0) | (graphs.edge_index >= limit)).any(0).nonzero().flatten()
    if len(bad):
        edge = int(bad[0])
        graph = int(torch.searchsorted(graphs.edge_ptr, edge, right=True)) - 1
        ends = " -> ".join(str(i) for i in graphs.edge_index[:, edge].tolist())
        raise DataError(
            f"{graphs.name}: graph {graph}: edge {edge - int(graphs.edge_ptr[graph])} ({ends}) leads to a "
            f"missing node; nodes are 0 to {int(limit[edge]) - 1}"
        )
