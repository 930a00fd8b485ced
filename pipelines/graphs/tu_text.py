"""The text format in which GIN and DGCNN ship the TU graph sets: one file, one line per node.

The first line is the number of graphs. A graph is a line ``nodes label`` and a line for each node:
``tag degree neighbour … neighbour [attribute …]``, neighbours numbered from 0 in their graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from graphrec.errors import ConfigError, DataError

from .assemble import assemble
from .container import GraphSet
from .edges import UNDIRECTED, EdgePolicy
from .features import one_hot, with_degree_features

Features = Literal["auto", "tags", "degree", "attributes", "constant"]
_CHOICES = ("auto", "tags", "degree", "attributes", "constant")


@dataclass(frozen=True)
class _Lines:
    values: np.ndarray  # every number of the file
    start: np.ndarray  # where each line begins in it
    count: np.ndarray  # how many each line has
    number: np.ndarray  # its number in the file, from 1
    path: str


def read_tu_text(
    path: str | Path,
    *,
    features: Features = "auto",
    policy: EdgePolicy = UNDIRECTED,
) -> GraphSet:
    """Read a set of labelled graphs.

    Args:
        path: The file. **Its graphs are usually sorted by label**: shuffle when training.
        features: What becomes ``x``: ``"tags"`` one-hot, ``"attributes"`` as they stand, one-hot
            ``"degree"``, or a ``"constant"`` 1. ``"auto"`` takes attributes beside tags where the file has
            them, tags where there is more than one, and otherwise degrees.
        policy: See `EdgePolicy`.

    Returns:
        The graphs, in the order of the file, so that fold files apply.

    Raises:
        ConfigError: Unknown ``features``, or attributes that the file does not have.
        DataError: The file is cut short or a line is not as above; names the line.
    """
    if features not in _CHOICES:
        raise ConfigError(f"features={features!r}: must be one of {', '.join(_CHOICES)}")
    lines = _tokens(str(path))
    header, labels = _headers(lines)
    sizes = lines.values[lines.start[header]].astype(np.int64)
    nodes = np.ones(len(lines.start), bool)
    nodes[0], nodes[header] = False, False
    at = np.flatnonzero(nodes)
    node_graph = np.repeat(np.arange(len(sizes)), sizes)
    edges = _edges(lines, at, node_graph, sizes)
    attributes = _attributes(lines, at)
    tags = lines.values[lines.start[at]].astype(np.int64)
    x, by_degree = _features(features, tags, attributes, str(path))
    values, codes = np.unique(labels, return_inverse=True)
    graphs = assemble(
        x,
        node_graph,
        edges,
        torch.from_numpy(codes.astype(np.int64)),
        classes=values.tolist(),
        name=str(path),
        policy=policy,
    )
    return with_degree_features(graphs) if by_degree else graphs


def _tokens(path: str) -> _Lines:
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    data = np.frombuffer(raw, np.uint8)
    space = (data == 32) | (data == 9) | (data == 13) | (data == 10)
    begins = (
        np.flatnonzero(~space & np.concatenate([[True], space[:-1]])) if len(data) else np.zeros(0, np.int64)
    )
    line_of = np.cumsum(data == 10)[begins]
    number, count = np.unique(line_of, return_counts=True)
    try:
        values = np.array(raw.split(), dtype="S").astype(np.float64)
    except ValueError:
        values = _find_bad_token(raw, path)
    if not len(values):
        raise DataError(f"{path}: is empty")
    return _Lines(values, np.cumsum(count) - count, count, number + 1, path)


def _find_bad_token(raw: bytes, path: str) -> np.ndarray:
    for number, line in enumerate(raw.split(b"\n"), 1):
        for token in line.split():
            try:
                float(token)
            except ValueError:
                text = token.decode("utf-8", "replace")
                raise DataError(f"{path}: line {number}: {text!r} is not a number") from None
    raise DataError(f"{path}: cannot be read as numbers")


def _headers(lines: _Lines) -> tuple[np.ndarray, np.ndarray]:
    """Lines that begin a graph, and the label in each."""
    graphs, total = int(lines.values[0]), len(lines.start)
    if lines.count[0] != 1 or graphs < 1:
        raise DataError(f"{lines.path}: line 1: must hold the number of graphs alone")
    at, line = [], 1
    for graph in range(graphs):
        if line >= total:
            raise DataError(
                f"{lines.path}: ends after {graph} of the {graphs} graphs that line 1 announces; cut short?"
            )
        if lines.count[line] != 2:
            raise DataError(
                f"{lines.path}: line {lines.number[line]}: graph {graph} must begin with its number of "
                f"nodes and its label, not with {lines.count[line]} numbers"
            )
        nodes = lines.values[lines.start[line]]
        if not 1 <= nodes < total or nodes != int(nodes) or line + int(nodes) >= total:
            raise DataError(
                f"{lines.path}: line {lines.number[line]}: graph {graph} announces {nodes:g} nodes, and "
                f"the file has {total - line - 1} more lines; cut short?"
            )
        at.append(line)
        line += 1 + int(nodes)
    if line != total:
        raise DataError(
            f"{lines.path}: line {lines.number[line]}: goes on after the {graphs} graphs of line 1"
        )
    header = np.array(at)
    labels = lines.values[lines.start[header] + 1]
    _refuse(lines, header, ~_whole(labels), "the label is not a whole number")
    return header, labels.astype(np.int64)


def _edges(lines: _Lines, at: np.ndarray, node_graph: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Ends of all edges, numbered through all nodes, (E, 2)."""
    _refuse(lines, at, lines.count[at] < 2, "a node needs a tag and a degree")
    degree = lines.values[lines.start[at] + 1]
    _refuse(lines, at, ~_whole(lines.values[lines.start[at]]), "the tag is not a whole number")
    _refuse(lines, at, ~_whole(degree) | (degree < 0), "the degree is not a whole number from 0 up")
    degree = degree.astype(np.int64)
    _refuse(lines, at, lines.count[at] < 2 + degree, "fewer neighbours than its degree says")
    place = np.repeat(lines.start[at] + 2 - (np.cumsum(degree) - degree), degree) + np.arange(degree.sum())
    node = np.repeat(np.arange(len(at)), degree)
    neighbour = lines.values[place]
    limit = sizes[node_graph[node]]
    wrong = (neighbour < 0) | (neighbour >= limit) | ~_whole(neighbour)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{lines.path}: line {lines.number[at[node[first]]]}: neighbour {neighbour[first]:g} is "
            f"missing; graph {node_graph[node[first]]} has the nodes 0 to {limit[first] - 1}"
        )
    offset = (np.cumsum(sizes) - sizes)[node_graph[node]]
    return np.stack([node, neighbour.astype(np.int64) + offset], axis=1)


def _attributes(lines: _Lines, at: np.ndarray) -> np.ndarray:
    """What follows the neighbours, (N, width); width 0 in most files."""
    used = 2 + lines.values[lines.start[at] + 1].astype(np.int64)
    left = lines.count[at] - used
    width = int(left[0])
    _refuse(
        lines, at, left != width, f"must have {width} attributes after its neighbours, like the first node"
    )
    values = lines.values[(lines.start[at] + used)[:, None] + np.arange(width)]
    _refuse(lines, at, ~np.isfinite(values).all(axis=1), "an attribute is not finite")
    return values.astype(np.float32)


def _whole(values: np.ndarray) -> np.ndarray:
    return (values == np.floor(values)) & (np.abs(values) < 2.0**53)


def _refuse(lines: _Lines, at: np.ndarray, wrong: np.ndarray, why: str) -> None:
    if wrong.any():
        raise DataError(f"{lines.path}: line {lines.number[at[int(wrong.argmax())]]}: {why}")


def _features(
    features: str, tags: np.ndarray, attributes: np.ndarray, path: str
) -> tuple[torch.Tensor, bool]:
    """``x``, and whether degrees shall replace it."""
    if features == "attributes":
        if not attributes.shape[1]:
            raise ConfigError(f"features='attributes': {path} has none; take 'tags' or 'degree'")
        return torch.from_numpy(attributes), False
    constant = torch.ones(len(tags), 1)
    if features in ("degree", "constant"):
        return constant, features == "degree"
    one = len(np.unique(tags)) < 2
    if features == "auto" and attributes.shape[1]:
        known = [torch.from_numpy(attributes)] + ([] if one else [one_hot(tags)])
        return torch.cat(known, dim=1), False
    if features == "auto" and one:
        return constant, True
    return one_hot(tags), False
