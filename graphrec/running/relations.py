"""Relations between the entities of texts."""

from __future__ import annotations

from functools import partial
from typing import Any

from graphrec.graph.relations import RelationExtractor, relation_metrics
from graphrec.pipelines.recipes import Recipe
from graphrec.report.run_plots import plot_confusion
from graphrec.training import TrainConfig

from .building import build_estimator, complaints_of
from .tasks import Job, Outcome, measured_by, register_task

_SIZES = {"words": ["<pad>", "<unk>"], "pos_names": ["<unk>"], "dep_names": ["<unk>"], "terms": ["a"]}
_METRICS = measured_by(partial(relation_metrics, negative=0))
_FIGURES = {
    "confusion": "Of the test instances of each class (row), how many were given which (column).",
    "attention": "A test instance of the middle length: how much of its tokens' weight lies on each edge, "
    "and which token looks at which.",
}


def make_relation_extractor(recipe: Recipe, seed: int, show: bool) -> RelationExtractor:
    """The estimator of a recipe."""
    fixed: dict[str, Any] = {
        "model": recipe.model.name,
        "model_options": dict(recipe.model.options),
        "validation": RelationExtractor().validation,
        "random_state": seed,
        "verbose": int(show),
    }
    found = build_estimator(RelationExtractor, recipe.training, more=TrainConfig.model_fields, **fixed)
    with complaints_of("model"):
        found._build(entities=2, classes=2, **_SIZES)
    with complaints_of("training"):
        found._config(seed)
    return found


@register_task(takes="relations", make=make_relation_extractor, figures=_FIGURES, metrics=_METRICS)
def relation_extraction(job: Job) -> Outcome:
    """Relations between the entities of a text, by BioIE and what it is compared with."""
    model: RelationExtractor = job.make().fit(job.data, split=job.split)
    figures, test = {}, job.split.test
    if "confusion" in job.draw and len(test):
        guess = model.predict_proba(job.data, index=test).argmax(1)
        names = [str(name) for name in model.classes_]
        figures["confusion"] = plot_confusion(job.data.y[test].numpy(), guess, names)
    if "attention" in job.draw and len(test) and model.has_attention:
        by_length = test[job.data.lengths()[test].argsort(stable=True)]
        figures["attention"] = model.plot_attention(job.data, int(by_length[len(test) // 2]))
    facts = {"parameters": sum(one.numel() for one in model.module_.parameters())}
    return Outcome(model.metrics_, model.history_, figures, facts, model.save)
