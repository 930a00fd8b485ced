"""Draw docs/figures/cluster_tree.png: python docs/draw_clusters.py."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import torch

from graphrec.graph.gsm import draw_cluster_tree


def main() -> None:
    """Sixty points in a square, joined where they are near; features are their places."""
    points = nx.random_geometric_graph(60, 0.22, seed=2)
    x = torch.tensor([points.nodes[node]["pos"] for node in points])
    ends = torch.tensor(list(points.edges)).t()
    figure = draw_cluster_tree(x, torch.cat([ends, ends.flip(0)], 1))
    figure.savefig(Path(__file__).parent / "figures" / "cluster_tree.png", dpi=110)


if __name__ == "__main__":
    main()
