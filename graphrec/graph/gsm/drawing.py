"""Pictures of cluster trees."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import DataError
from graphrec.figures.figure import Figure

from ..topology import Topology
from .clusters import Hierarchy, affinity_clusters
from .orders import depth_first_order

_LARGEST = 400
_LABELLED = 40


def cluster_tree(x: Tensor, edge_index: Tensor | Topology, *, rounds: int = 3) -> Hierarchy:
    """The affinity clusters of one graph, as GSM++ sees them.

    Args:
        x: Node features (N, F).
        edge_index: (2, E), or a topology.
        rounds: Of the colours that break ties; GSM++ takes as many as it has local layers.
    """
    graph = Topology.of(edge_index, len(x)).graph
    source, target = (one.cpu().numpy().astype(np.int64) for one in (graph.index, graph.row))
    features = x.detach().float().cpu().numpy()
    return affinity_clusters(features, source, target, np.array([0, len(x)]), rounds=rounds)


def draw_cluster_tree(x: Tensor, edge_index: Tensor, *, level: int | None = None, seed: int = 0) -> Figure:
    """A graph coloured by its clusters, beside the tree that they form.

    The leaves stand in the order in which GSM++ reads them. Every node of the tree is a cluster; its dot is
    as large as the cluster, and lies at the level at which it came to be.

    Args:
        x: Node features (N, F).
        edge_index: (2, E).
        level: Whose clusters give the colours; None for the one with the number nearest to eight.
        seed: Of the layout.

    Raises:
        DataError: The graph has no or more than 400 nodes.
    """
    nodes = len(x)
    if not 1 <= nodes <= _LARGEST:
        raise DataError(f"the graph has {nodes} nodes; a picture shows 1 to {_LARGEST}")
    tree = cluster_tree(x, edge_index)
    if level is None:
        level = int(np.abs(np.log2([len(one) / 8 for one in tree.levels])).argmin())
    level = min(max(level, 0), len(tree.levels) - 1)
    order = depth_first_order(tree).nodes
    colours = _colours(tree, order, level)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    _draw_graph(left, edge_index, colours, seed)
    _draw_tree(right, tree, order, level, colours)
    left.set(title=f"Clusters of level {level}", xticks=[], yticks=[])
    return figure


def _colours(tree: Hierarchy, order: NDArray[Any], level: int) -> NDArray[Any]:
    """A colour per node, (N, 4): clusters in the order of the leaves go through the palette."""
    cluster = tree.levels[level].cluster
    _, first = np.unique(cluster[order], return_index=True)
    rank = np.empty(len(tree.levels[level]), dtype=np.int64)
    rank[cluster[order][np.sort(first)]] = np.arange(len(first))
    palette = matplotlib.colormaps["tab10" if len(first) <= 10 else "tab20"]
    return palette(rank[cluster] % palette.N)


def _draw_graph(axes: Any, edge_index: Tensor, colours: NDArray[Any], seed: int) -> None:
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(len(colours)))
    graph.add_edges_from((i, j) for i, j in edge_index.t().tolist() if i != j)
    places = nx.spring_layout(graph, seed=seed, iterations=200, k=1.5 / np.sqrt(max(len(colours), 1)))
    points = np.array([places[i] for i in range(len(colours))]).reshape(-1, 2)
    for i, j in graph.edges:
        axes.plot(*points[[i, j]].T, color="#bbbbbb", linewidth=0.8, zorder=1)
    axes.scatter(*points.T, s=90, c=colours, edgecolors="white", linewidths=0.6, zorder=2)
    if len(colours) <= _LABELLED:
        for node, (across, up) in enumerate(points):
            axes.text(across, up, str(node), ha="center", va="center", fontsize=6, zorder=3)


def _draw_tree(axes: Any, tree: Hierarchy, order: NDArray[Any], level: int, colours: NDArray[Any]) -> None:
    nodes = len(order)
    across = np.empty(nodes)
    across[order] = np.arange(nodes)
    middle, height = across, np.zeros(nodes)
    axes.scatter(across, height, s=26, c=colours, zorder=3)
    for number in range(len(tree.levels) - 1):
        parents, sizes = tree.parents(number), np.bincount(tree.parents(number))
        above = np.bincount(parents, weights=middle) / sizes
        # a cluster that stays alone in a round is not drawn again
        top = np.where(sizes > 1, number + 1.0, 0.0)
        np.maximum.at(top, parents, np.where(sizes[parents] > 1, 0.0, height))
        for child, parent in enumerate(parents):
            if sizes[parent] > 1:
                steps = (
                    [middle[child], middle[child], above[parent]],
                    [height[child], top[parent], top[parent]],
                )
                axes.plot(*steps, color="#999999", linewidth=0.9, zorder=1)
        new = sizes > 1
        members = tree.sizes(number + 1)
        mean = np.stack([np.bincount(tree.levels[number + 1].cluster, weights=part) for part in colours.T], 1)
        shade = (
            mean / members[:, None]
            if number + 1 <= level
            else np.tile((0.35, 0.35, 0.35, 1.0), (len(new), 1))
        )
        axes.scatter(above[new], top[new], s=16 + 160 * members[new] / nodes, c=shade[new], zorder=3)
        middle, height = above, top
    axes.set(
        title="Affinity tree",
        ylabel="round",
        xlabel="position in the sequence",
        yticks=range(len(tree.levels)),
    )
    axes.spines[["top", "right"]].set_visible(False)
    if nodes <= _LABELLED:
        axes.set_xticks(np.arange(nodes), order, fontsize=6)
        axes.set_xlabel("nodes, in the order of the sequence")
