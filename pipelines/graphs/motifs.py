"""Generated graphs whose class is a motif: a data set that needs no file, for first runs and for tests.

A random tree, joined by an edge to a motif of six edges: a cycle, a house, a star with an edge between two of
its leaves, or a clique of four. That is the idea of BA-2Motifs (Luo et al., arXiv 2011.04573), with trees in
place of preferential attachment. Node features are a constant, so only edges tell the classes apart.
"""

from __future__ import annotations

import numpy as np
import torch

from graphrec.errors import ConfigError

from .container import GraphSet
from .edges import UNDIRECTED, clean_edges

MOTIFS = {
    "cycle": ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0)),
    "house": ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (4, 1)),
    "star": ((0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 2)),
    "clique": ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)),
}
"""Edges of each motif; the classes, in this order."""


def motif_graphs(graphs: int = 300, *, nodes: int = 20, classes: int = 2, seed: int = 0) -> GraphSet:
    """Trees with a motif.

    Args:
        graphs: How many.
        nodes: Nodes of each tree; they vary by a quarter.
        classes: How many motifs, 2 to 4.
        seed: Of all that is drawn.

    Raises:
        ConfigError: A number is out of range.
    """
    if graphs < classes or nodes < 4 or not 2 <= classes <= len(MOTIFS):
        raise ConfigError(
            f"graphs={graphs}, nodes={nodes}, classes={classes}: there must be a graph of each class, four "
            f"nodes or more, and 2 to {len(MOTIFS)} classes"
        )
    rng = np.random.default_rng(seed)
    names = list(MOTIFS)[:classes]
    edges, sizes, labels = [], [], rng.permutation(np.arange(graphs) % classes)
    for label in labels:
        ends, size = _graph(rng, nodes, MOTIFS[names[label]])
        edges.append(clean_edges(ends, size, None, UNDIRECTED, "motifs")[0])
        sizes.append(size)
    counts = [one.shape[1] for one in edges]
    return GraphSet(
        torch.ones(sum(sizes), 1),
        torch.cat(edges, 1),
        torch.tensor([0, *np.cumsum(sizes).tolist()]),
        torch.tensor([0, *np.cumsum(counts).tolist()]),
        torch.from_numpy(labels.astype(np.int64)),
        classes=tuple(names),
        name=f"{graphs} trees with motifs",
    )


def _graph(
    rng: np.random.Generator, nodes: int, motif: tuple[tuple[int, int], ...]
) -> tuple[torch.Tensor, int]:
    """Edges of one graph, int64 (2, E), and its number of nodes; the tree's come first."""
    size = int(rng.integers(nodes - nodes // 4, nodes + nodes // 4 + 1))
    tree = [(child, int(rng.integers(child))) for child in range(1, size)]
    joined = (int(rng.integers(size)), size)
    ends = [*tree, joined, *((a + size, b + size) for a, b in motif)]
    return torch.tensor(ends).T.contiguous(), size + 1 + max(max(pair) for pair in motif)
