"""Distances between nodes at several granularities: in the graph, and between clusters in coarsened graphs.

The hierarchical positional encoding of GSM++ (arXiv:2411.15671, section 5) is made of shortest paths between
the clusters of two nodes at every level. Here distances beyond a few steps count as one, so that memory is
linear in the nodes, and a graph is looked at on a fixed number of its levels (`scales`).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

from graphrec.errors import ConfigError

from .clusters import Hierarchy
from .hashing import Integers

_MOST = 1 << 28
"""Pairs of nodes that a product of sparse matrices may go through; beyond, memory would run out."""


def scale_levels(height: Integers, scales: int, *, leaves: bool) -> Integers:
    """Which levels of every tree are looked at, evenly spaced, int64 (B, scales).

    Args:
        height: Of every tree, (B,).
        scales: How many; trees with fewer levels repeat some.
        leaves: From the leaves to the level below the root, else from the level above the leaves to the root.
    """
    steps = np.linspace(0, 1, scales) if scales > 1 else np.full(1, 0.0 if leaves else 1.0)
    first = np.zeros_like(height) if leaves else np.minimum(1, height)
    last = np.maximum(height - 1, 0) if leaves else height
    return np.rint(first[:, None] + steps * (last - first)[:, None]).astype(np.int64)


def at_levels(tree: Hierarchy, levels: Integers) -> Integers:
    """Cluster of every node at its graph's level, (N,), numbered apart for different levels.

    Args:
        tree: The clusters.
        levels: One for every graph, (B,).
    """
    found, shift = np.zeros(len(tree.node_graph), dtype=np.int64), 0
    wanted = levels[tree.node_graph]
    for number, level in enumerate(tree.levels):
        here = wanted == number
        found[here] = level.cluster[here] + shift
        shift += len(level)
    return found


def neighbours_at(tree: Hierarchy, levels: Integers) -> csr_array:
    """Which clusters of `at_levels` an edge joins, as a symmetric matrix of ones (C, C)."""
    ends, shift = [np.zeros((2, 0), dtype=np.int64)], 0
    for number, level in enumerate(tree.levels):
        ends.append(level.ends[:, levels[level.graph[level.ends[0]]] == number] + shift)
        shift += len(level)
    one, other = np.concatenate(ends, 1)
    return _ones(np.concatenate([one, other]), np.concatenate([other, one]), shift)


def within(adjacency: csr_array, hops: int) -> csr_array:
    """Distances from 1 to ``hops`` between different nodes; pairs farther apart are not stored.

    Args:
        adjacency: Symmetric, of ones, without a diagonal.
        hops: At least 1.

    Raises:
        ConfigError: So many pairs are within reach that memory would not hold them.
    """
    adjacency.sort_indices()
    reached, found = adjacency, adjacency.copy()
    degree = np.diff(adjacency.indptr)
    for distance in range(2, hops + 1):
        paths = int(degree[reached.indices].sum())
        if paths > _MOST:
            raise ConfigError(
                f"hops={hops}: {paths} paths of {distance} steps are too many to list; take fewer hops"
                " (tokeniser 'khop': fewer scales)"
            )
        wider = reached.astype(np.int32) @ adjacency.astype(np.int32)  # counts, which int8 would wrap
        wider.setdiag(0)
        wider.eliminate_zeros()
        wider.data[:] = 1
        new = wider - wider.multiply(found.astype(bool))
        new.eliminate_zeros()
        reached = new.astype(np.int8)
        found = found + reached * np.int8(distance)
    found = csr_array(found)
    found.sort_indices()
    return found


def pair_codes(tree: Hierarchy, nodes: Integers, *, scales: int, hops: int, reach: int) -> np.ndarray:
    """One number per pair of nodes that stand at most ``reach`` apart in a sequence, for all scales at once.

    Digit s, in base ``hops + 2``, is the distance of their clusters at scale s: 0 for the same, up to
    ``hops``, and ``hops + 1`` beyond.

    Args:
        tree: The clusters.
        nodes: The node at every position, (N,).
        scales: How many levels.
        hops: Farthest distance told apart.
        reach: Of the window.

    Returns:
        int32 (N, 2 * reach + 1): column c of position q is the pair with position ``q + reach - c``.
    """
    place = np.arange(len(nodes))[:, None]
    partner = (place + reach - np.arange(2 * reach + 1)).clip(0, max(len(nodes) - 1, 0))
    levels = scale_levels(tree.height, scales, leaves=True)
    codes = np.zeros(partner.shape, dtype=np.int32)
    for scale in range(scales):
        cluster = at_levels(tree, levels[:, scale])[nodes]
        found = _looked_up(within(neighbours_at(tree, levels[:, scale]), hops), cluster, partner)
        found = np.where(found == 0, hops + 1, found)
        found[cluster[:, None] == cluster[partner]] = 0
        codes += found.astype(np.int32) * np.int32((hops + 2) ** scale)
    return codes


def _looked_up(matrix: csr_array, cluster: Integers, partner: np.ndarray) -> np.ndarray:
    """Entries of a matrix for pairs (N, columns) of positions; 0 where nothing is stored."""
    if not matrix.nnz:
        return np.zeros(partner.shape, dtype=np.int8)
    found = np.empty(partner.shape, dtype=np.int8)
    rows = max(1, (1 << 22) // partner.shape[1])
    for start in range(0, len(partner), rows):
        some = partner[start : start + rows]
        mine = np.broadcast_to(cluster[start : start + rows, None], some.shape)
        found[start : start + rows] = _entries(matrix, mine.ravel(), cluster[some.ravel()]).reshape(
            some.shape
        )
    return found


def _entries(matrix: csr_array, rows: Integers, columns: Integers) -> np.ndarray:
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * matrix.shape[1] + matrix.indices
    wanted = rows * matrix.shape[1] + columns
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, matrix.data[at], 0)


def _ones(rows: Integers, columns: Integers, size: int) -> csr_array:
    found = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size)).tocsr()
    found.data[:] = 1
    return found
