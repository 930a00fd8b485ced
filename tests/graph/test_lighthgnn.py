"""LightHGNN's losses, hyperedge sampling and topology score, against slow formulas and numbers by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypergraph_tools import incidences, pairs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.errors import ConfigError
from graphrec.graph.hypergraph import (
    Distillation,
    Incidence,
    LightStudent,
    high_order_loss,
    hyperedge_reliability,
    soft_label_loss,
    topology_score,
)
from graphrec.graph.hypergraph.hgnn import HGNN
from graphrec.graph.hypergraph.lighthgnn import reliability_of

# Vertices 0 and 1 in hyperedge 0, 1 and 2 in hyperedge 1, none in hyperedge 2, vertex 3 alone in hyperedge 3.
PAIRS = torch.tensor([[0, 1, 1, 2, 3], [0, 0, 1, 1, 3]])
SURE, TORN = [50.0, 0.0], [0.0, 0.0]  # entropies 0 and log 2


def members() -> Incidence:
    return Incidence.from_pairs(PAIRS, 4, 4)


def soft(z: Tensor) -> list[list[float]]:
    """Softmax of rows, in plain Python."""
    rows = []
    for row in z.tolist():
        top = [math.exp(v - max(row)) for v in row]
        rows.append([v / sum(top) for v in top])
    return rows


def divergence(t: list[float], s: list[float], official: bool = False) -> float:
    """KL(t || s), or what the official code computes in its place."""
    if official:
        return sum(math.exp(a) * (a - math.log(b)) for a, b in zip(t, s, strict=True))
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(t, s, strict=True))


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_soft_labels(official: bool, temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    heat = 1.0 if official else temperature
    pairs = zip(soft(teacher / heat), soft(student / heat), strict=True)
    slow = sum(divergence(t, s, official) for t, s in pairs) / 4
    found = soft_label_loss(student, teacher, temperature=temperature, official_arithmetic=official)
    assert float(found) == pytest.approx(slow)


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_high_order(official: bool, temperature: float) -> None:
    torch.manual_seed(1)
    student, teacher = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    heat = 1.0 if official else temperature
    t, s = soft(teacher / heat), soft(student / heat)

    def mean(rows: list[list[float]], vertices: list[int]) -> list[float]:
        after = temperature if official else 1.0
        return [sum(rows[v][c] for v in vertices) / len(vertices) / after for c in range(3)]

    kept = [[1, 2], [3]]
    slow = sum(divergence(mean(t, e), mean(s, e), official) for e in kept) / len(kept)
    mask = torch.tensor([False, True, False, True])
    how = {"temperature": temperature, "official_arithmetic": official}
    found = high_order_loss(student, teacher, members(), mask, **how)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(slow, rel=1e-6)


@settings(max_examples=30)
@given(incidences(), st.integers(0, 99))
def test_true_divergence_is_least_where_the_student_is_the_teacher(incidence: Incidence, seed: int) -> None:
    """Both terms are 0 there and positive elsewhere; the official arithmetic is least somewhere else."""
    torch.manual_seed(seed)
    logits = torch.randn(incidence.num_vertices, 3, dtype=torch.float64)
    other = logits + torch.randn_like(logits)
    kept = incidence.edge_degree > 0
    assert float(soft_label_loss(logits, logits)) == pytest.approx(0, abs=1e-9)
    assert float(soft_label_loss(other, logits)) > 0
    assert float(high_order_loss(logits, logits, incidence, kept)) == pytest.approx(0, abs=1e-9)
    assert float(high_order_loss(other, logits, incidence, kept)) >= -1e-9
    free = logits.clone().requires_grad_()
    (true,) = torch.autograd.grad(soft_label_loss(free, logits), free)
    (official,) = torch.autograd.grad(soft_label_loss(free, logits, official_arithmetic=True), free)
    assert true.abs().max() < 1e-9 < official.abs().max()


def test_reliability_by_hand() -> None:
    """Hyperedge 0 loses a whole log 2 per vertex, 1 half of it, 3 nothing; 2 is empty."""
    calm = torch.tensor([SURE, SURE, SURE, TORN])
    disturbed = torch.tensor([TORN, TORN, SURE, TORN])
    trust = reliability_of(calm, disturbed, members())
    torch.testing.assert_close(trust.entropy, torch.tensor([0, 0, 0, math.log(2)]), atol=1e-6, rtol=0)
    expected = torch.tensor([1, 0.5, 0, 0]) * math.log(2)
    torch.testing.assert_close(trust.change, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(trust.probability, torch.tensor([0, 0.5, 0, 1.0]), atol=1e-6, rtol=0)


def test_a_teacher_that_nothing_disturbs_is_trusted_everywhere() -> None:
    calm = torch.randn(4, 2)
    assert reliability_of(calm, calm, members()).probability.tolist() == [1, 1, 0, 1]


@settings(max_examples=30)
@given(incidences(), st.integers(0, 99), st.booleans())
def test_any_hypergraph_has_a_finite_loss(incidence: Incidence, seed: int, official: bool) -> None:
    torch.manual_seed(seed)
    x = torch.randn(incidence.num_vertices, 3)
    teacher, student = HGNN(3, 2), torch.nn.Linear(3, 2)
    trust = hyperedge_reliability(teacher, x, incidence)
    assert not teacher.training
    assert ((trust.probability >= 0) & (trust.probability <= 1)).all()
    assert (trust.probability[incidence.edge_degree == 0] == 0).all()
    with torch.no_grad():
        target = 100 * teacher(x, incidence)  # some soft labels underflow to 0
    terms = Distillation(target, incidence, trust, official_arithmetic=official)
    loss = terms.loss(100 * student(x), torch.zeros(len(x), dtype=torch.int64), torch.arange(1))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_terms_add_up_by_lambda() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(4, 2), torch.randn(4, 2)
    y, train = torch.tensor([0, 1, 0, 1]), torch.tensor([1, 2])
    everything = reliability_of(target, target, members())
    hard = torch.nn.functional.cross_entropy(logits[train], y[train])
    soft_ = soft_label_loss(logits, target)
    high = high_order_loss(logits, target, members(), torch.tensor([True, True, False, True]))

    def loss(trust: bool, label_weight: float) -> Tensor:
        terms = Distillation(target, members(), everything if trust else None, label_weight)
        return terms.loss(logits, y, train)

    torch.testing.assert_close(loss(False, 0.0), soft_)
    torch.testing.assert_close(loss(True, 0.0), soft_ + high)
    torch.testing.assert_close(loss(True, 0.3), 0.3 * hard + 0.7 * (soft_ + high))
    torch.testing.assert_close(loss(True, 1.0), hard)


def test_hyperedges_are_drawn_afresh_by_their_probability() -> None:
    """The mean over draws of a loss linear in the drawn share tells the probability."""
    torch.manual_seed(0)
    pairs = torch.tensor([[0, 1], [0, 1]])
    two = Incidence.from_pairs(pairs, 2, 2)
    student, target = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    calm, disturbed = torch.tensor([SURE, SURE, SURE]), torch.tensor([TORN, [0.5, 0.0], SURE])
    three = Incidence.from_pairs(torch.tensor([[0, 1, 2], [0, 1, 2]]), 3, 3)
    share = float(reliability_of(calm, disturbed, three).probability[1])
    assert 0 < share < 0.5
    trust = reliability_of(calm[:2], disturbed[:2], two)
    assert trust.probability.tolist() == pytest.approx([0, share])
    terms = Distillation(target.flip(0), two, trust)
    y, train = torch.zeros(2, dtype=torch.int64), torch.arange(1)
    base = soft_label_loss(student, target.flip(0))
    drawn = [float(terms.loss(student, y, train) - base) > 1e-6 for _ in range(2000)]
    assert sum(drawn) / 2000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))


@settings(max_examples=30)
@given(incidences(weighted=False), st.integers(0, 99))
def test_topology_score(incidence: Incidence, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(incidence.num_vertices, 3)
    vertex, edge = pairs_of(incidence)
    scores = []
    for e in edge.unique().tolist():
        inside = x[vertex[edge == e]]
        scores.append(float((inside - inside.mean(0)).norm(dim=1).mean()))
    slow = sum(scores) / len(scores) if scores else math.nan
    assert topology_score(x, incidence) == pytest.approx(slow, abs=1e-5, nan_ok=True)


def test_student_is_the_published_perceptron() -> None:
    student = LightStudent(7, 3)
    assert sum(p.numel() for p in student.parameters()) == 7 * 128 + 128 + 2 * 128 + 128 * 3 + 3
    assert [type(one).__name__ for one in student.body] == ["Linear", "ReLU", "BatchNorm1d", "Dropout"]


def test_impossible_terms() -> None:
    with pytest.raises(ConfigError, match=r"label_weight=1\.5"):
        Distillation(torch.zeros(4, 2), members(), label_weight=1.5)
    with pytest.raises(ConfigError, match="temperature=0"):
        Distillation(torch.zeros(4, 2), members(), temperature=0)
