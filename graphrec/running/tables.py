"""Click-through rates from a table, with the same estimator as `graphrec fit`."""

from __future__ import annotations

from typing import Any

from graphrec.estimators import CTRClassifier
from graphrec.estimators.settings import check, split_settings
from graphrec.metrics import METRICS
from graphrec.pipelines.recipes import Recipe

from .building import complaints_of
from .tasks import Job, Outcome, register_task


def make_click_classifier(recipe: Recipe, seed: int, show: bool) -> CTRClassifier:
    """The estimator of a recipe."""
    model, options = recipe.model.name, dict(recipe.model.options)
    found = CTRClassifier(model, model_options=options, random_state=seed, verbose=int(show))
    with complaints_of("training"):
        found.set_params(**split_settings(found, recipe.training))
    with complaints_of("model or training"):
        check(found, seed)
    return found


@register_task(
    takes="table", make=make_click_classifier, metrics=lambda classes: [*METRICS, "base_rate", "rows"]
)
def click_prediction(job: Job) -> Outcome:
    """Whether a row of a log ends in a click; as `graphrec fit` does it."""
    model = job.make().fit(job.data.path, **job.data.arguments, **job.split)
    facts: dict[str, Any] = {"parameters": sum(one.numel() for one in model.module_.parameters())}
    return Outcome(model.metrics_, model.history_, {}, facts, model.save)
