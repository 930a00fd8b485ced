"""Classes of windows of EEG."""

from __future__ import annotations

from typing import Any

from graphrec.errors import ConfigError
from graphrec.graph.eeg import EEGClassifier
from graphrec.graph.eeg.scores import eeg_metrics
from graphrec.pipelines.recipes import Recipe
from graphrec.report.run_plots import plot_confusion
from graphrec.training import TrainConfig

from .building import build_estimator, complaints_of
from .tasks import Job, Outcome, measured_by, register_task

_OF_DATA = ("window", "stride", "outliers", "reference", "mixed", "validation")
"""What the sections data and split say, so training may not."""
_OF_BAND = ("split_by", "gap")
"""What only the choice of a band needs where the split is given."""
_FIGURES = {
    "confusion": "Of the test windows of each class (row), how many were given which (column).",
    "gates": "How much each electrode weighs in its region's signal, and each region in the head's, as the "
    "mean over the test windows. Left for the signals themselves, right for what electrodes told each other.",
}


def make_eeg_classifier(recipe: Recipe, seed: int, show: bool) -> EEGClassifier:
    """The estimator of a recipe; it takes windows as they come from the source."""
    defaults = EEGClassifier().get_params()
    training = {"scaling": None, **recipe.training}
    fixed: dict[str, Any] = {
        **{name: defaults[name] for name in _OF_DATA},
        "model": recipe.model.name,
        "model_options": dict(recipe.model.options),
        "random_state": seed,
        "verbose": int(show),
    }
    for name in set(_OF_BAND) & set(training):
        if training.get("band") != "auto":
            raise ConfigError(f"training.{name}: is for band: auto; the section split says the rest")
    found = build_estimator(EEGClassifier, training, more=TrainConfig.model_fields, **fixed)
    with complaints_of("model"):
        found._build(classes=2)
    with complaints_of("training"):
        found._config(seed)
    return found


@register_task(takes="windows", make=make_eeg_classifier, figures=_FIGURES, metrics=measured_by(eeg_metrics))
def eeg_classification(job: Job) -> Outcome:
    """Classes of windows of EEG, by HiSTN."""
    model: EEGClassifier = job.make().fit(job.data, split=job.split)
    figures, test = {}, job.split.test
    if "confusion" in job.draw and len(test):
        guess = model.predict_proba(job.data)[test.numpy()].argmax(1)
        names = [str(name) for name in model.classes_]
        figures["confusion"] = plot_confusion(job.data.y[test].numpy(), guess, names)
    if "gates" in job.draw and len(test):
        figures["gates"] = model.plot_gates(job.data.select(test))
    facts = {"parameters": sum(one.numel() for one in model.module_.parameters())}
    return Outcome(model.metrics_, model.history_, figures, facts, model.save)
