"""In which order the nodes of a graph become a sequence, and which of them that order cannot tell apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .clusters import Hierarchy
from .hashing import Hashes, Integers, mix, sum_hashes


@dataclass(frozen=True, eq=False)
class Order:
    """A sequence of nodes, graph after graph.

    Attributes:
        nodes: The node at every position, int64 (N,).
        ties: Class of every position, int64 (N,): nodes of a class stand in the order of their numbers, for
            want of anything else that tells them apart.
    """

    nodes: Integers
    ties: Integers

    @property
    def tied(self) -> bool:
        """Whether any class has two members."""
        return len(self.ties) > 0 and int(self.ties.max()) + 1 < len(self.ties)


def degree_order(tree: Hierarchy, degree: Integers) -> Order:
    """From few neighbours to many, as Graph-Mamba has it (arXiv:2402.00789), then by colours."""
    nodes = np.lexsort((tree.colours, degree, tree.node_graph))
    return Order(nodes, _classes(tree, mix(tree.colours + degree.astype(np.uint64)), nodes))


def depth_first_order(tree: Hierarchy) -> Order:
    """The leaves of the cluster tree from left to right; of a cluster's parts the smaller stand first.

    Parts of one size are ordered by a hash of all below them.
    """
    keys: list[np.ndarray] = []  # of every node, from its leaf to the root, each of less weight than the next
    below, path = tree.colours, np.zeros(len(tree.colours), dtype=np.uint64)
    for number, level in enumerate(tree.levels):
        if number:
            below = mix(sum_hashes(below, tree.parents(number - 1), len(level)) + np.uint64(number))
        # the number of a cluster keeps its nodes together where another one ties with it
        keys += [level.cluster, below[level.cluster], tree.sizes(number)[level.cluster]]
        path = mix(path + below[level.cluster])
    nodes = np.lexsort((*keys, tree.node_graph))
    return Order(nodes, _classes(tree, path, nodes))


def _classes(tree: Hierarchy, keys: Hashes, nodes: Integers) -> Integers:
    """Numbers for equal (graph, key) of the nodes at every position."""
    whole = mix(keys + mix(tree.node_graph.astype(np.uint64)))
    return np.unique(whole[nodes], return_inverse=True)[1].reshape(-1).astype(np.int64)
