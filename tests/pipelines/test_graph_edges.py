"""Edge policies: the same rules for every reader, seen on any multigraph."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from graph_tools import graphs
from hypothesis import given, settings
from torch_geometric.data import Data

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.graphs import EdgePolicy, clean_edges


def pairs(edge_index: torch.Tensor) -> list[tuple[int, int]]:
    return [(u, v) for u, v in edge_index.t().tolist()]


@given(graphs())
@settings(max_examples=80)
def test_policies_do_what_they_say(data: Data) -> None:
    given_pairs, nodes = pairs(data.edge_index), int(data.num_nodes or 0)
    merged, _, notes = clean_edges(data.edge_index, nodes)
    assert pairs(merged) == sorted(set(given_pairs))
    assert bool(notes) == (len(set(given_pairs)) < len(given_pairs))
    kept, _, _ = clean_edges(data.edge_index, nodes, policy=EdgePolicy(duplicates="keep"))
    assert pairs(kept) == given_pairs
    both, _, _ = clean_edges(data.edge_index, nodes, policy=EdgePolicy(undirected=True, self_loops="drop"))
    assert pairs(both) == sorted({p for u, v in given_pairs if u != v for p in ((u, v), (v, u))})
    loops, _, _ = clean_edges(data.edge_index, nodes, policy=EdgePolicy(undirected=True))
    assert Counter(pairs(loops)) == Counter({p for u, v in given_pairs for p in ((u, v), (v, u))})


def test_merged_edges_have_the_mean_of_their_features() -> None:
    ends = torch.tensor([[1, 0, 1], [0, 1, 0]])
    edges, attr, _ = clean_edges(ends, 2, torch.tensor([[1.0], [5.0], [3.0]]))
    assert pairs(edges) == [(0, 1), (1, 0)]
    assert attr is not None
    assert attr.tolist() == [[5.0], [2.0]]
    _, both, _ = clean_edges(ends, 2, torch.tensor([[1.0], [5.0], [3.0]]), EdgePolicy(undirected=True))
    assert both is not None
    assert both.tolist() == [[3.0], [3.0]]
    loop, attr, _ = clean_edges(
        torch.tensor([[0], [0]]), 1, torch.tensor([[7.0]]), EdgePolicy(undirected=True)
    )
    assert pairs(loop) == [(0, 0)]
    assert attr is not None
    assert attr.tolist() == [[7.0]]


def test_what_is_refused_names_the_row() -> None:
    ends = torch.tensor([[0, 1, 0, 2], [1, 1, 1, 2]])
    with pytest.raises(DataError, match="mine: row 2: node 1 has an edge to itself"):
        clean_edges(ends, 3, policy=EdgePolicy(self_loops="refuse"), name="mine")
    with pytest.raises(DataError, match="mine: row 3: an earlier row has the same two ends"):
        clean_edges(ends, 3, policy=EdgePolicy(duplicates="refuse"), name="mine")
    dropped, _, notes = clean_edges(ends, 3, policy=EdgePolicy(self_loops="drop"))
    assert pairs(dropped) == [(0, 1)]
    assert notes == ("2 self loops dropped", "1 repeated edges merged")


def test_a_policy_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="undirected=True needs duplicates="):
        EdgePolicy(undirected=True, duplicates="keep")
    with pytest.raises(ConfigError, match="self_loops='add'; must be one of keep, drop, refuse"):
        EdgePolicy(self_loops="add")  # type: ignore[arg-type]
