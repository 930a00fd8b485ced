"""Sparse features give what dense ones give."""

from __future__ import annotations

import pytest
import torch
from hypergraph_tools import incidences
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from graphrec.errors import ConfigError
from graphrec.graph.hypergraph import Incidence, LightStudent
from graphrec.graph.hypergraph.hgnn import TEACHERS
from graphrec.graph.models import NodeModel
from graphrec.graph.rows import SparseRows, compact, disturb, drop, project


def words(rows: int, columns: int, share: float = 0.3) -> torch.Tensor:
    """Mostly zeros, some rows and columns empty."""
    return torch.randn(rows, columns) * (torch.rand(rows, columns) < share)


@settings(max_examples=40)
@given(st.sampled_from(["student", *sorted(TEACHERS)]), incidences(), st.integers(0, 99))
def test_networks(name: str, incidence: Incidence, seed: int) -> None:
    torch.manual_seed(seed)
    x = words(incidence.num_vertices, 6)
    module = LightStudent(6, 3) if name == "student" else TEACHERS[name](6, 3, hidden=9)
    module.eval()
    rest = () if name == "student" else (incidence,)
    pull = torch.randn(len(x), 3)
    found = []
    for one in (x, SparseRows.of(x)):
        module.zero_grad()
        out = module(one, *rest)
        (out * pull).sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_some_rows(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, layer = words(rows, columns), torch.nn.Linear(columns, 2)
    index = torch.randint(0, rows, (seed % 5,))
    part = SparseRows.of(x)[index]
    assert part.shape == (len(index), columns)
    torch.testing.assert_close(project(layer, part), layer(x[index]))


def test_disturbance_has_the_same_distribution() -> None:
    torch.manual_seed(0)
    x = torch.zeros(4000, 30)
    x[:, 3] = 2.0
    assert isinstance(compact(x), SparseRows)
    assert compact(torch.ones(3, 3)).shape == (3, 3)
    eye = torch.nn.Linear(30, 30, bias=True)
    torch.nn.init.eye_(eye.weight)
    torch.nn.init.zeros_(eye.bias)
    dense, sparse = (project(eye, disturb(one, 0.5)).detach() for one in (x, compact(x)))
    for one in (dense, sparse):
        assert one[:, :3].eq(0).all()
        assert one[:, 4:].eq(0).all()
        assert abs(float(one[:, 3].mean()) - 1.0) < 0.06
        assert abs(float(one[:, 3].std()) - 1.0) < 0.06


@pytest.mark.parametrize("embed", [False, True])
def test_a_network_for_nodes(embed: bool) -> None:
    torch.manual_seed(0)
    x, edges = words(9, 6), torch.randint(0, 9, (2, 20))
    module = NodeModel(6, 3, hidden=8, layers=2, embed=embed).eval()
    pull = torch.randn(9, 3)
    found = []
    for one in (x, SparseRows.of(x)):
        module.zero_grad()
        out = module(one, edges)
        (out * pull).sum().backward()
        found.append([out.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_a_network_that_sums_features_first_takes_no_sparse_ones() -> None:
    x = SparseRows.of(words(9, 6))
    with pytest.raises(ConfigError, match="embed=True"):
        NodeModel(6, 3, conv="gin", hidden=8)(x, torch.zeros(2, 0, dtype=torch.int64))


def test_dropout_leaves_zeros_and_expectation() -> None:
    torch.manual_seed(0)
    x = torch.zeros(500, 200)
    x[:, :100] = 1.0
    sparse, eye = SparseRows.of(x), torch.nn.Linear(200, 200, bias=False)
    torch.nn.init.eye_(eye.weight)
    assert drop(sparse, 0.5, training=False).values is sparse.values
    found = project(eye, drop(sparse, 0.5, training=True)).detach()
    assert found[:, 100:].eq(0).all()
    assert set(found[:, :100].unique().tolist()) == {0.0, 2.0}
    assert abs(float(found[:, :100].mean()) - 1.0) < 0.03


def test_they_travel_as_a_batch_does() -> None:
    x = words(5, 4)
    leaves, spec = pytree.tree_flatten((SparseRows.of(x), "other"))
    back, _ = pytree.tree_unflatten(
        [one.clone() if isinstance(one, torch.Tensor) else one for one in leaves], spec
    )
    layer = torch.nn.Linear(4, 3)
    torch.testing.assert_close(project(layer, back), layer(x))
    project(layer, back).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(3, 4))
