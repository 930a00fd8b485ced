"""Tasks on graphs: classes of whole graphs, classes of the nodes of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from graphrec.graph import GraphClassifier, NodeClassifier
from graphrec.metrics import class_metrics
from graphrec.pipelines.recipes import Recipe
from graphrec.report.run_plots import plot_confusion
from graphrec.training import TrainConfig

from .building import build_estimator, complaints_of
from .tasks import Job, Maker, Outcome, measured_by, register_task

_METRICS = measured_by(class_metrics)
FIGURES = {
    "attention": "How HISTOGRAPH weighs the layers, and how much attention each node receives.",
    "confusion": "Of the test graphs or nodes of each class (row), how many were given which (column).",
}


def _maker(kind: type[GraphClassifier] | type[NodeClassifier]) -> Maker:
    def make(recipe: Recipe, seed: int, show: bool) -> Any:
        options = {"model": recipe.model.name, "model_options": dict(recipe.model.options)}
        fixed = {**options, "random_state": seed, "verbose": int(show)}
        found = build_estimator(kind, recipe.training, more=TrainConfig.model_fields, **fixed)
        with complaints_of("model"):
            found._build(in_features=2, classes=2)
        with complaints_of("training"):
            found._config(seed)
        return found

    return make


@register_task(takes="graphs", make=_maker(GraphClassifier), figures=FIGURES, metrics=_METRICS)
def graph_classification(job: Job) -> Outcome:
    """Classes of whole graphs, by HISTOGRAPH or a baseline."""
    model = job.make().fit(job.data, split=job.split)
    figures = {}
    tested = job.data.select(job.split.test)
    if "confusion" in job.draw and len(tested):
        guess = model.predict_proba(tested).argmax(1)
        figures["confusion"] = plot_confusion(tested.y.numpy(), guess, [str(name) for name in model.classes_])
    if "attention" in job.draw and _looks(model):
        figures["attention"] = model.plot_attention(job.data[int(_shown(job.split))], seed=0)
    return _outcome(model, figures)


@register_task(takes="graph", make=_maker(NodeClassifier), figures=FIGURES, metrics=_METRICS)
def node_classification(job: Job) -> Outcome:
    """Classes of the nodes of one graph, by HISTOGRAPH or a baseline."""
    model = job.make().fit(job.data, split=job.split)
    figures = {}
    test = job.split.test
    if "confusion" in job.draw and len(test):
        guess = model.predict_proba(job.data)[test.numpy()].argmax(1)
        figures["confusion"] = plot_confusion(
            job.data.y[test].numpy(), guess, [str(c) for c in model.classes_]
        )
    if "attention" in job.draw and _looks(model):
        figures["attention"] = model.plot_attention(job.data, seed=0)
    return _outcome(model, figures)


def _looks(model: Any) -> bool:
    """Whether the model has attention over layers to draw."""
    return getattr(model.module_, "readout", None).__class__.__name__ == "HistoGraph"


def _shown(split: Any) -> Any:
    """A graph to draw: the first that tests, else the first that trains."""
    return split.test[0] if len(split.test) else split.train[0]


def _outcome(model: Any, figures: dict[str, Figure]) -> Outcome:
    parameters = int(np.sum([one.numel() for one in model.module_.parameters()]))
    return Outcome(model.metrics_, model.history_, figures, {"parameters": parameters}, model.save)
