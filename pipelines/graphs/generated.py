"""Generated graphs for questions that need more than a node's neighbourhood: connectivity, counting colours.

Graph sequence models are compared on such tasks (Behrouz et al., arXiv:2411.15671, section 6), whose settings
are not published; these are settings of our own.
"""

from __future__ import annotations

import numpy as np
import torch

from graphrec.errors import ConfigError

from .assemble import assemble
from .container import GraphSet
from .edges import UNDIRECTED

COLOURS = 4


def connectivity_graphs(count: int, *, nodes: tuple[int, int] = (20, 40), seed: int = 0) -> GraphSet:
    """Graphs of two components with two marked nodes: are these in one component (class ``"joined"``)?

    Each component is a tree whose nodes hang on one of the three before them, with a few further edges: long
    rather than dense. Both classes are drawn from the same graphs, only the marks differ.

    Args:
        count: How many graphs, half of either class.
        nodes: Fewest and most nodes of a graph.
        seed: Of everything.

    Returns:
        Features: 1, and whether the node is marked; float32 (N, 2).

    Raises:
        ConfigError: ``nodes`` is no range from 6 up.
    """
    _check(nodes, 6)
    rng = np.random.default_rng(seed)
    sizes, edges, marks = [], [], []
    for number in range(count):
        size = int(rng.integers(nodes[0], nodes[1] + 1))
        first = int(rng.integers(size // 3, size - size // 3 + 1))
        pairs = np.concatenate([_long_graph(first, rng), first + _long_graph(size - first, rng)])
        other = first, size - first
        start = (0, first)
        if number % 2:
            side = int(rng.integers(2))
            marked = start[side] + rng.choice(other[side], 2, replace=False)
        else:
            marked = np.array([rng.integers(first), first + rng.integers(size - first)])
        x = np.zeros(size, dtype=np.float32)
        x[marked] = 1
        place = rng.permutation(size)
        shuffled = np.zeros_like(x)
        shuffled[place] = x
        sizes.append(size)
        edges.append(place[pairs])
        marks.append(shuffled)
    flat = torch.from_numpy(np.concatenate(marks))
    features = torch.stack([torch.ones_like(flat), flat], 1)
    labels = torch.arange(count) % 2
    return _assembled(features, sizes, edges, labels, ("apart", "joined"), "connectivity")


def colour_counting_graphs(
    count: int, *, nodes: tuple[int, int] = (12, 30), most: int = 9, seed: int = 0
) -> GraphSet:
    """Connected graphs of coloured nodes: how many have the first colour (classes ``"0"`` to ``str(most)``)?

    The number and the size are drawn independently and evenly, so no share of nodes tells the number.

    Args:
        count: How many graphs.
        nodes: Fewest and most nodes of a graph.
        most: Largest number.
        seed: Of everything.

    Returns:
        Features: the colour of each node as one of 4, float32 (N, 4).

    Raises:
        ConfigError: ``nodes`` is no range from ``most`` up.
    """
    _check(nodes, max(most, 3))
    rng = np.random.default_rng(seed)
    sizes = rng.integers(nodes[0], nodes[1] + 1, count)
    labels = rng.integers(0, most + 1, count)
    edges, colours = [], []
    for size, number in zip(sizes.tolist(), labels.tolist(), strict=True):
        colour = rng.integers(1, COLOURS, size)
        colour[:number] = 0
        colours.append(rng.permutation(colour))
        edges.append(rng.permutation(size)[_long_graph(size, rng)])
    features = torch.eye(COLOURS)[torch.from_numpy(np.concatenate(colours))]
    names = tuple(str(number) for number in range(most + 1))
    return _assembled(features, sizes.tolist(), edges, torch.from_numpy(labels), names, "colour counting")


def _check(nodes: tuple[int, int], least: int) -> None:
    if len(nodes) != 2 or not least <= nodes[0] <= nodes[1]:
        raise ConfigError(f"nodes={nodes}: must be the fewest and the most, at least {least}")


def _long_graph(size: int, rng: np.random.Generator) -> np.ndarray:
    """Edges (M, 2) of a connected graph: a tree on recent nodes, and a tenth as many edges again."""
    child = np.arange(1, size)
    parent = np.maximum(child - rng.integers(1, 4, len(child)), 0)
    more = rng.integers(0, max(size - 3, 1), max(1, size // 10))
    extra = np.stack([more, np.minimum(more + rng.integers(2, 4, len(more)), size - 1)], 1)
    return np.concatenate([np.stack([parent, child], 1), extra])


def _assembled(
    features: torch.Tensor,
    sizes: list[int],
    edges: list[np.ndarray],
    labels: torch.Tensor,
    classes: tuple[str, ...],
    name: str,
) -> GraphSet:
    starts = np.concatenate([[0], np.cumsum(sizes)])
    whole = np.concatenate([pairs + start for pairs, start in zip(edges, starts, strict=False)])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return assemble(features, owner, whole, labels, classes=classes, name=name, policy=UNDIRECTED)
