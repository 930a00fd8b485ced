"""LightHGNN's two evaluation protocols (arXiv:2402.04296), from a hypergraph to figures.

Splits are those of `graphrec.pipelines.hypergraphs`: 20 vertices per class train, 100 per class validate, all
others test. Teacher and student train 200 epochs each and keep the best validation. Official code:
``trans_train.py`` and ``prod_train.py`` of https://github.com/iMoonLab/LightHGNN at 6835031.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphrec.pipelines.hypergraphs import Hypergraph, production_split, transductive_split
from graphrec.pipelines.index_splits import IndexSplit

from .classifier import HypergraphClassifier
from .lighthgnn import topology_score
from .stages import STUDENTS

Figures = dict[str, Mapping[str, float]]
EVERY = ("teacher", "mlp", *STUDENTS)
"""What a protocol compares: a network, a perceptron on labels alone, and the students."""


def transductive(
    graph: Hypergraph,
    teacher: str = "hgnn",
    *,
    seed: int = 0,
    train: int = 20,
    valid: int = 100,
    models: Sequence[str] = EVERY,
    **options: Any,
) -> Figures:
    """All vertices are seen in training, with the labels of few.

    Args:
        graph: With labels.
        teacher: Network that the students learn from.
        seed: Of split, weights and noise.
        train: Vertices per class that train.
        valid: Vertices per class that validate.
        models: Some of `EVERY`.
        **options: Of `HypergraphClassifier`, for all.

    Returns:
        For each model accuracy, f1_macro and f1_micro on the test vertices, and its topology score.
    """
    split = transductive_split(graph, train=train, valid=valid, seed=seed)
    fitted = fit_all(graph, split, teacher, models, {**options, "random_state": seed})
    return {
        name: {**one.evaluate(graph, index=split.test), "topology": embedding_score(one, graph)}
        for name, one in fitted.items()
    }


def production(
    graph: Hypergraph,
    teacher: str = "hgnn",
    *,
    seed: int = 0,
    train: int = 20,
    valid: int = 100,
    unseen: float = 0.2,
    models: Sequence[str] = EVERY,
    **options: Any,
) -> Figures:
    """A share of the test vertices and their incidences are not there in training.

    Args:
        graph: With labels.
        teacher: Network that the students learn from.
        seed: Of split, weights and noise.
        train: Vertices per class that train.
        valid: Vertices per class that validate.
        unseen: Share of the test vertices that training does not see; 0.9 in the official configuration for
            the recipe sets.
        models: Some of `EVERY`.
        **options: Of `HypergraphClassifier`, for all.

    Returns:
        For each model the figures on seen test vertices in the hypergraph of training
        (``transductive_accuracy``, ...), on unseen ones in the whole (``inductive_...``), and on all test
        vertices in the whole (``all_...``).
    """
    split = production_split(graph, train=train, valid=valid, unseen=unseen, seed=seed)
    options = {**options, "random_state": seed}
    fitted = fit_all(split.observed, split.observed_split, teacher, models, options)
    return {
        name: {
            **_named("transductive", one.evaluate(split.observed, index=split.observed_split.test)),
            **_named("inductive", one.evaluate(graph, index=split.inductive)),
            **_named("all", one.evaluate(graph, index=split.split.test)),
        }
        for name, one in fitted.items()
    }


def _named(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in figures.items()}


def fit_all(
    graph: Hypergraph, split: IndexSplit, teacher: str, models: Sequence[str], options: Mapping[str, Any]
) -> dict[str, HypergraphClassifier]:
    """The teacher, and whichever others are asked for; the students share it."""
    first = HypergraphClassifier(teacher, **options).fit(graph, split=split)
    found = {"teacher": first}
    for name in (one for one in models if one != "teacher"):
        given = first if name in STUDENTS else None
        found[name] = HypergraphClassifier(name, **options).fit(graph, split=split, teacher=given)
    return {name: found[name] for name in models}


@torch.no_grad()
def embedding_score(model: HypergraphClassifier, graph: Hypergraph) -> float:
    """Topology score of what a fitted model's last layer sees."""
    x, incidence = model._inputs(graph)
    module: Any = model.module_.eval()
    hidden: Tensor = module.embed(x, incidence) if model.needs_hypergraph else module.embed(x)
    return topology_score(hidden, incidence)
