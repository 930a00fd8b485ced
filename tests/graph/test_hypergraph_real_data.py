"""CA-Cora, CC-Cora and CC-Citeseer by LightHGNN's protocol, one seed.

`benchmarks/lighthgnn.py` runs five seeds.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphrec.graph.hypergraph import production, transductive
from graphrec.pipelines.hypergraphs import read_hypergraph_npz

pytestmark = pytest.mark.data


def real(name: str) -> Path:
    """A hypergraph below the folder that GRAPHREC_DATA names; the test is skipped without it."""
    path = Path(os.environ.get("GRAPHREC_DATA", ""), "hypergcn_npz", f"{name}.npz")
    if "GRAPHREC_DATA" not in os.environ or not path.exists():
        pytest.skip(f"set GRAPHREC_DATA to a folder that holds hypergcn_npz/{name}.npz")
    return path


@pytest.mark.parametrize(
    ("name", "least", "above"),
    [("coauthorship_cora", 0.68, 0.05), ("cocitation_cora", 0.60, 0.0), ("cocitation_citeseer", 0.58, 0.0)],
)
def test_students_keep_up_with_their_teacher(name: str, least: float, above: float) -> None:
    """``least`` is about what logistic regression reaches on features that HGNN's operator smoothed."""
    graph = read_hypergraph_npz(real(name))
    found = transductive(graph, seed=0, epochs=200)
    score = {model: figures["accuracy"] for model, figures in found.items()}
    assert score["teacher"] > least, score
    assert score["lighthgnn"] > score["teacher"] - 0.04, score
    assert score["lighthgnn"] > score["mlp"] + above, score
    assert score["lighthgnnp"] > score["mlp"] + above - 0.02, score
    topology = {model: figures["topology"] for model, figures in found.items()}
    assert topology["teacher"] < topology["mlp"], topology


def test_production_on_vertices_never_seen() -> None:
    """A student meets new vertices by their features alone; its teacher has their hyperedges as well."""
    graph = read_hypergraph_npz(real("coauthorship_cora"))
    found = production(graph, seed=0, epochs=200, unseen=0.2, models=("teacher", "mlp", "lighthgnn"))
    assert found["teacher"]["inductive_accuracy"] > 0.65, found
    assert found["lighthgnn"]["inductive_accuracy"] > found["mlp"]["inductive_accuracy"] + 0.02, found
    assert found["lighthgnn"]["transductive_accuracy"] > found["lighthgnn"]["inductive_accuracy"], found
