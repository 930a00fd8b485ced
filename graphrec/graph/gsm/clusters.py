"""Hierarchical affinity clustering of graphs, in rounds over lists of edges.

Bateni et al., Affinity clustering: hierarchical clustering at scale, NeurIPS 2017: every cluster picks its
cheapest edge to another one, and what the picked edges join becomes one cluster; that is Borůvka's algorithm,
so clusters at least halve in every round and edges keep their costs. GSM++ (Behrouz et al., arXiv:2411.15671,
section 5) tokenises a graph by the resulting tree.

What the papers leave open, and is chosen here:

* the cost of an edge is the squared distance between its nodes' features, rounded to float32;
* of edges that cost the same those come first whose ends' colours (`hashing.node_colours`) hash lower, and of
  edges that still tie all are picked, so the tree does not depend on how nodes are numbered;
* when a graph has no more edges to pick, its components join in a root;
* directions, loops and repeated edges do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .hashing import Hashes, Integers, mix, node_colours


@dataclass(frozen=True, eq=False)
class Level:
    """One granularity of a `Hierarchy`: C clusters.

    Attributes:
        cluster: Cluster of every node, int64 (N,).
        graph: Graph of every cluster, int64 (C,).
        ends: Pairs of clusters that an edge joins, each once with the lower number first, int64 (2, M).
    """

    cluster: Integers
    graph: Integers
    ends: Integers

    def __len__(self) -> int:
        return len(self.graph)


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The trees of a batch of graphs, from single nodes to one cluster per graph.

    Attributes:
        levels: The finest first, at which every node is a cluster. A graph that is done earlier than others
            keeps its one cluster.
        height: Of the tree of every graph, int64 (B,): the first level with a single cluster.
        colours: See `hashing.node_colours`, (N,).
        node_graph: Graph of every node, int64 (N,).
    """

    levels: tuple[Level, ...]
    height: Integers
    colours: Hashes
    node_graph: Integers

    def parents(self, level: int) -> Integers:
        """Cluster at ``level + 1`` of every cluster at ``level``, int64 (C,)."""
        found = np.empty(len(self.levels[level]), dtype=np.int64)
        found[self.levels[level].cluster] = self.levels[level + 1].cluster
        return found

    def sizes(self, level: int) -> Integers:
        """Nodes in every cluster, int64 (C,)."""
        return np.bincount(self.levels[level].cluster, minlength=len(self.levels[level])).astype(np.int64)


def singletons(
    x: NDArray[np.float32], source: Integers, target: Integers, ptr: Integers, *, rounds: int = 3
) -> Hierarchy:
    """Every node by itself: what `affinity_clusters` starts with, and takes the same arguments."""
    node_graph = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    leaves = Level(np.arange(len(x)), node_graph, _simple(source, target, len(x)))
    colours = node_colours(x, source, target, rounds)
    return Hierarchy((leaves,), np.zeros(len(ptr) - 1, dtype=np.int64), colours, node_graph)


def affinity_clusters(
    x: NDArray[np.float32], source: Integers, target: Integers, ptr: Integers, *, rounds: int = 3
) -> Hierarchy:
    """Cluster every graph of a batch.

    Args:
        x: Node features (N, F).
        source, target: Edges, int64 (E,), numbered through all nodes.
        ptr: First node of every graph and N, int64 (B + 1,).
        rounds: Of colour refinement, see `hashing.node_colours`.
    """
    single = singletons(x, source, target, ptr, rounds=rounds)
    level, colours, node_graph = single.levels[0], single.colours, single.node_graph
    ends, rank = _ranked(level.ends, edge_costs(x, level.ends), colours)
    level = Level(level.cluster, level.graph, ends)
    levels, height = [level], single.height
    while len(level) > len(np.unique(level.graph)):
        height[level.graph[_repeated(level.graph)]] = len(levels)
        parent, count = _merge(level, rank)
        graph = np.empty(count, dtype=np.int64)
        graph[parent] = level.graph
        ends, rank = _coarser(parent[level.ends], rank, count)
        level = Level(parent[level.cluster], graph, ends)
        levels.append(level)
    return Hierarchy(tuple(levels), height, colours, node_graph)


def edge_costs(x: NDArray[np.float32], ends: Integers) -> NDArray[np.float32]:
    """Squared distance between the features of the ends (2, M) of edges, float32 (M,)."""
    cost = np.empty(ends.shape[1], dtype=np.float32)
    rows = max(1, (1 << 21) // max(1, x.shape[1]))
    for start in range(0, len(cost), rows):
        one, other = ends[:, start : start + rows]
        cost[start : start + rows] = np.square(x[one].astype(np.float64) - x[other]).sum(1)
    return cost


def _simple(source: Integers, target: Integers, nodes: int) -> Integers:
    """Every pair of different nodes that an edge joins, once, the lower number first, (2, M)."""
    low, high = np.minimum(source, target), np.maximum(source, target)
    keys = np.unique((low * nodes + high)[low != high])
    return np.stack(np.divmod(keys, max(nodes, 1)))


def _ranked(ends: Integers, cost: NDArray[np.float32], colours: Hashes) -> tuple[Integers, Integers]:
    """Edges from cheap to dear, and their dense ranks: equal where neither cost nor colours differ."""
    one, other = colours[ends]
    both = mix(mix(one) + mix(other))
    order = np.lexsort((both, cost))
    cost, both = cost[order], both[order]
    new = (cost[1:] != cost[:-1]) | (both[1:] != both[:-1])
    return ends[:, order], np.concatenate([np.zeros(min(1, len(order)), dtype=np.int64), new.cumsum()])


def _repeated(graph: Integers) -> NDArray[np.bool_]:
    """Which clusters belong to a graph with others."""
    return np.bincount(graph)[graph] > 1


def _merge(level: Level, rank: Integers) -> tuple[Integers, int]:
    """One round: the new cluster of every cluster, and how many there are."""
    one, other = level.ends
    cheapest = np.full(len(level), np.iinfo(np.int64).max)
    np.minimum.at(cheapest, one, rank)
    np.minimum.at(cheapest, other, rank)
    picked = (rank == cheapest[one]) | (rank == cheapest[other])
    active = np.zeros(int(level.graph.max()) + 1, dtype=bool)
    active[level.graph[one]] = True
    done = np.flatnonzero(~active[level.graph])  # of graphs without edges: components that join in a root
    first = np.full(len(active), -1)
    first[level.graph[done][::-1]] = done[::-1]
    source = np.concatenate([one[picked], done])
    target = np.concatenate([other[picked], first[level.graph[done]]])
    joined = coo_array((np.ones(len(source), dtype=np.int8), (source, target)), shape=(len(level),) * 2)
    count, parent = connected_components(joined, directed=False)
    return parent.astype(np.int64), int(count)


def _coarser(ends: Integers, rank: Integers, count: int) -> tuple[Integers, Integers]:
    """Edges between new clusters; of several between two the cheapest."""
    low, high = ends.min(0), ends.max(0)
    between = np.flatnonzero(low != high)
    _, first = np.unique(low[between] * count + high[between], return_index=True)
    kept = between[np.sort(first)]  # sorted by rank as before, so the first is the cheapest
    return np.stack([low[kept], high[kept]]), rank[kept]
