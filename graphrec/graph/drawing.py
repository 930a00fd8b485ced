"""Pictures of what a graph network looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.figures.figure import Figure

_LARGEST = 200


def draw_attention(
    edge_index: Tensor, layers: NDArray[Any], nodes: NDArray[Any], *, embedded: bool = True, seed: int = 0
) -> Figure:
    """Weight of each layer as bars, and the graph with its nodes as large as their weight.

    Args:
        edge_index: (2, E).
        layers: Signed weights (L,).
        nodes: Weights (N,) that sum to 1. Beyond 200 nodes those with the largest are drawn.
        embedded: Whether the first layer is the embedded input; else it is the first convolution's output.
        seed: Of the layout.
    """
    import networkx as nx
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
    numbers = np.arange(len(layers)) + (not embedded)
    left.bar(numbers, layers, color=["#3b6fb6" if one >= 0 else "#c44e52" for one in layers])
    left.axhline(0, color="black", linewidth=0.8)
    first = "0: the input" if embedded else "1: the first convolution"
    left.set(xlabel=f"layer ({first})", ylabel="weight", title="Attention over layers")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    kept = np.sort(np.argsort(-nodes, kind="stable")[:_LARGEST])
    graph = nx.Graph()
    graph.add_nodes_from(kept.tolist())
    inside = torch.isin(edge_index, torch.from_numpy(kept)).all(0)
    graph.add_edges_from((i, j) for i, j in edge_index[:, inside].t().tolist() if i != j)
    places = nx.spring_layout(graph, seed=seed)
    for i, j in graph.edges:
        (x0, y0), (x1, y1) = places[i], places[j]
        right.plot((x0, x1), (y0, y1), color="#bbbbbb", linewidth=0.8, zorder=1)
    points = np.array([places[i] for i in graph.nodes])
    sizes = (20 + 200 * nodes[kept] / nodes[kept].max()) * min(1.0, 30 / len(kept))  # many must find room
    dots = right.scatter(points[:, 0], points[:, 1], s=sizes, c=nodes[kept], cmap="viridis", zorder=2)
    figure.colorbar(dots, ax=right, label="attention received")
    part = "" if len(kept) == len(nodes) else f", the {len(kept)} most attended of {len(nodes):,}"
    right.set(title=f"Attention over nodes{part}", xticks=[], yticks=[])
    return figure
