"""Graphs and files that the tests of graphs and hypergraphs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch_geometric.data import Data


def real(*parts: str) -> Path:
    """A file below the folder that GRAPHREC_DATA names; the test is skipped without it."""
    folder = os.environ.get("GRAPHREC_DATA")
    path = Path(folder or "", *parts)
    if not folder or not path.exists():
        pytest.skip(f"set GRAPHREC_DATA to a folder that holds {'/'.join(parts)}")
    return path


@st.composite
def graphs(draw: st.DrawFn, features: int = 2) -> Data:
    """One graph of any kind: one node, no edges, loops, repeated edges, parts, isolated vertices."""
    nodes = draw(st.integers(1, 6))
    ends = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = draw(st.lists(ends, max_size=10))
    index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t().contiguous()
    x = torch.arange(nodes * features, dtype=torch.float32).reshape(nodes, features)
    return Data(x=x + draw(st.integers(-3, 3)), edge_index=index, y=torch.tensor([draw(st.integers(0, 2))]))


@st.composite
def graph_lists(draw: st.DrawFn) -> list[Data]:
    """One to five such graphs."""
    return draw(st.lists(graphs(), min_size=1, max_size=5))


def tu_text(*found: tuple[int, list[tuple[int, list[int]]]]) -> str:
    """The text format: for each graph its label, and tag and neighbours of each node."""
    lines = [str(len(found))]
    for label, nodes in found:
        lines.append(f"{len(nodes)} {label}")
        lines += [" ".join(map(str, [tag, len(near), *near])) for tag, near in nodes]
    return "\n".join(lines) + "\n"


TRIANGLE = (1, [(0, [1, 2]), (0, [0, 2]), (5, [0, 1])])
POINT = (0, [(0, [])])
PATH = (0, [(5, [1]), (0, [0, 2]), (0, [1])])


def write(path: Path, text: str) -> Path:
    """The path, with the text in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
