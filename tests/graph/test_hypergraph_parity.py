"""The HGNN family against DeepHypergraph (0.9.4 or 0.9.7), whose teachers LightHGNN's official code takes."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from types import ModuleType

import pytest
import torch

from graphrec.graph.hypergraph import Incidence, topology_score
from graphrec.graph.hypergraph.hgnn import TEACHERS
from graphrec.pipelines.hypergraphs import from_edge_lists

pytestmark = pytest.mark.parity
OFFICIAL = {"hgnn": "HGNN", "hgnnp": "HGNNP", "hnhn": "HNHN", "unigcn": "UniGCN"}


@pytest.fixture(scope="module")
def dhg() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("dhg")


def count_the_start_too(incidence: Incidence) -> None:
    """What dhg 0.9.4 does, and 0.9.7 no longer: a mean of degrees that counts a 0 more."""
    size = incidence.edge_degree.unsqueeze(1)
    mean = incidence.neighbour_inverse_root**-2 * size / (size + 1)
    incidence.__dict__["neighbour_inverse_root"] = mean**-0.5


@pytest.mark.parametrize("name", sorted(TEACHERS))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_same_weights_same_numbers(dhg: ModuleType, name: str, weighted: bool) -> None:
    """State dicts are interchangeable; vertex 29 is in no hyperedge, and hyperedges may have weights."""
    torch.manual_seed(0)
    lists = [sorted(torch.randperm(29)[:size].tolist()) for size in (2, 3, 5, 8, 1, 20, 4)]
    lists.append(list(range(29)))
    weights = torch.rand(len(lists)) + 0.5 if weighted else None
    x = torch.randn(30, 6)
    incidence = Incidence.of(from_edge_lists(x, lists, edge_weight=weights))
    graph = dhg.Hypergraph(30, lists, None if weights is None else weights.tolist())
    if name == "unigcn" and version("dhg") == "0.9.4":
        count_the_start_too(incidence)
    theirs = getattr(dhg.models, OFFICIAL[name])(6, 8, 3).eval()
    ours = TEACHERS[name](6, 3, hidden=8).eval()
    ours.load_state_dict(theirs.state_dict())
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine, official = ours(a, incidence), theirs(b, graph)
    torch.testing.assert_close(mine, official, atol=1e-5, rtol=1e-4)
    pull = torch.randn_like(mine)
    (mine * pull).sum().backward()
    (official * pull).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_topology_score_by_its_structures(dhg: ModuleType) -> None:
    """The official score's loop over hyperedges and their vertices, on dhg's own hypergraph."""
    torch.manual_seed(1)
    lists = [sorted(torch.randperm(12)[:size].tolist()) for size in (2, 3, 5, 8, 1)]
    x = torch.randn(12, 4)
    graph = dhg.Hypergraph(12, lists)
    centre = graph.v2e(x, aggr="mean")
    slow = [(x[graph.nbr_v(e)] - centre[e]).norm(dim=1).mean() for e in range(graph.num_e)]
    found = topology_score(x, Incidence.of(from_edge_lists(x, lists)))
    assert found == pytest.approx(float(torch.stack(slow).mean()), rel=1e-5)
