"""Classes of images."""

from __future__ import annotations

from typing import Any

from graphrec.pipelines.recipes import Recipe
from graphrec.report.run_plots import plot_confusion
from graphrec.training import TrainConfig
from graphrec.vision import ImageClassifier
from graphrec.vision.classification.report import plot_mistakes
from graphrec.vision.classification.scores import image_metrics
from graphrec.vision.classification.settings import check

from .building import build_estimator, complaints_of
from .tasks import Job, Outcome, measured_by, register_task

_FIGURES = {
    "confusion": "Of the test images of each class (row), how many were given which (column).",
    "mistakes": "The mistakes that it is surest of: the true class, and what the image was taken for.",
}


def make_image_classifier(recipe: Recipe, seed: int, show: bool) -> ImageClassifier:
    """The estimator of a recipe."""
    fixed: dict[str, Any] = {
        "model": recipe.model.name,
        "model_options": dict(recipe.model.options),
        "random_state": seed,
        "verbose": int(show),
    }
    found = build_estimator(ImageClassifier, recipe.training, more=TrainConfig.model_fields, **fixed)
    with complaints_of("model or training"):
        check(found)
    return found


@register_task(
    takes="images", make=make_image_classifier, figures=_FIGURES, metrics=measured_by(image_metrics)
)
def image_classification(job: Job) -> Outcome:
    """Classes of images, by a vision backbone."""
    model: ImageClassifier = job.make().fit(job.data, split=job.split)
    figures, test = {}, job.split.test
    if job.draw and len(test):
        tested, names = job.data.subset(test), [str(name) for name in model.classes_]
        scores, labels = model.predict_proba(tested), tested.labels.numpy()
        if "confusion" in job.draw:
            figures["confusion"] = plot_confusion(labels, scores.argmax(1), names)
        sheet = plot_mistakes(tested, labels, scores, names) if "mistakes" in job.draw else None
        if sheet is not None:
            figures["mistakes"] = sheet
    facts = {"parameters": sum(one.numel() for one in model.module_.parameters())}
    return Outcome(model.metrics_, model.history_, figures, facts, model.save)
