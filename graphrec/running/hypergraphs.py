"""Classes of the vertices of a hypergraph, in LightHGNN's two settings."""

from __future__ import annotations

from typing import Any

from graphrec.graph.hypergraph import HypergraphClassifier
from graphrec.pipelines.hypergraphs import Hypergraph, ProductionSplit
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.pipelines.recipes import Recipe
from graphrec.report.run_plots import plot_confusion

from .building import build_estimator, complaints_of, refuse_unknown, typed
from .tasks import Job, Outcome, register_task

_SHAPE = ("teacher", "hidden", "student_hidden", "layers", "dropout", "official_arithmetic", "singletons")
_FIGURES = {
    "confusion": "Of the test vertices of each class (row), how many were given which (column).",
    "reliability": "How sure the teacher is of each hyperedge, and how little a disturbance changes that; "
    "LightHGNN+ draws the reliable ones more often.",
}


def make_hypergraph_classifier(recipe: Recipe, seed: int, show: bool) -> HypergraphClassifier:
    """The estimator of a recipe; the width and kind of a network are options of the model."""
    refuse_unknown(recipe.model.options, _SHAPE, "model.options")
    defaults = HypergraphClassifier().get_params()
    shape = typed(HypergraphClassifier, recipe.model.options, "model.options")
    shape = {**{name: defaults[name] for name in _SHAPE}, **shape}
    fixed = {"model": recipe.model.name, "random_state": seed, "validation": defaults["validation"]}
    found = build_estimator(HypergraphClassifier, recipe.training, **shape, **fixed)
    with complaints_of("model"):
        found.check()
    return found


@register_task(
    takes="hypergraph",
    make=make_hypergraph_classifier,
    figures=_FIGURES,
    metrics=lambda classes: ["accuracy", "f1_macro", "f1_micro"],
    parts=("valid", "test", "transductive", "inductive", "all"),
)
def hypergraph_classification(job: Job) -> Outcome:
    """Classes of vertices, by a network on hypergraphs or by LightHGNN's perceptron."""
    split, graph = job.split, job.data
    model: HypergraphClassifier = job.make()
    metrics: dict[str, Any]
    if isinstance(split, ProductionSplit):
        inside = split.observed_split
        model.fit(split.observed, split=inside)
        metrics = {
            "valid": model.evaluate(split.observed, index=inside.valid),
            "transductive": model.evaluate(split.observed, index=inside.test),
            "inductive": model.evaluate(graph, index=split.inductive),
            "all": model.evaluate(graph, index=split.split.test),
        }
        tested = split.split
    else:
        model.fit(graph, split=split)
        parts = {"valid": split.valid, "test": split.test}
        metrics = {name: model.evaluate(graph, index=index) for name, index in parts.items() if len(index)}
        tested = split
    facts = {"parameters": sum(one.numel() for one in model.module_.parameters())}
    return Outcome(metrics, model.history_, _figures(job, model, graph, tested), facts, model.save)


def _figures(job: Job, model: HypergraphClassifier, graph: Hypergraph, split: IndexSplit) -> dict[str, Any]:
    figures = {}
    if "confusion" in job.draw and len(split.test) and graph.y is not None:
        guess = model.predict_proba(graph)[split.test.numpy()].argmax(1)
        names = [str(name) for name in model.classes_]
        figures["confusion"] = plot_confusion(graph.y[split.test].numpy(), guess, names)
    if "reliability" in job.draw and model.reliability_ is not None:
        figures["reliability"] = model.plot_reliability(graph)
    return figures
