"""What each metric is called, which way is better, and how to say what it means."""

from __future__ import annotations

from dataclasses import dataclass

from graphrec.errors import ConfigError


@dataclass(frozen=True)
class Metric:
    """One metric of `BinaryMetrics.compute`.

    Args:
        name: Its key.
        title: How a table heads it.
        better: ``"higher"``, ``"lower"`` or ``"one"`` (the best value is 1).
        meaning: One or two sentences for a reader who does not know it.
    """

    name: str
    title: str
    better: str
    meaning: str


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "auc",
            "AUC",
            "higher",
            "The chance that a randomly drawn positive row gets a higher score than a randomly drawn "
            "negative one (area under the ROC curve). 0.5 is guessing, 1 is a perfect order. It says nothing "
            "about whether the probabilities are right.",
        ),
        Metric(
            "logloss",
            "Log loss",
            "lower",
            "The mean of −log(probability given to what happened). It rewards probabilities that are right, "
            "and punishes confident mistakes.",
        ),
        Metric(
            "ne",
            "Normalised entropy",
            "lower",
            "Log loss divided by that of always predicting the base rate (He et al., 2014). 1 means no "
            "better than knowing the base rate; 0.8 means that a fifth of the uncertainty is gone.",
        ),
        Metric(
            "pr_auc",
            "PR-AUC",
            "higher",
            "Average precision: how pure the top of the ranking is, over all cut-offs. Guessing gives the "
            "base rate, so compare it with that and not with 0.5.",
        ),
        Metric(
            "gauc",
            "Group AUC",
            "higher",
            "AUC inside each group (user), then the plain mean over the groups that have both outcomes. It "
            "measures the order that one user sees, not who clicks more.",
        ),
        Metric(
            "gauc_weighted",
            "Group AUC, weighted",
            "higher",
            "The same, each group counting as many times as it has rows (Zhou et al., 2018).",
        ),
        Metric(
            "ece",
            "Calibration error",
            "lower",
            "Expected calibration error: rows are sorted by prediction and cut into ten equal parts; the "
            "mean gap between predicted and observed rate. 0.01 means one percentage point off on average.",
        ),
        Metric(
            "calibration",
            "Predicted / observed",
            "one",
            "Mean prediction divided by mean label. 1 is right on average, 1.1 predicts 10% too many.",
        ),
        Metric(
            "brier",
            "Brier score",
            "lower",
            "Mean squared difference between probability and outcome (0 or 1).",
        ),
    )
}
"""The metrics of `BinaryMetrics.compute`, in the order of tables; ``rows`` and ``base_rate`` come beside."""

CLASS_METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "accuracy", "Accuracy", "higher", "Share of the rows whose most probable class is the true one."
        ),
        Metric(
            "f1_macro",
            "Macro F1",
            "higher",
            "The harmonic mean of precision and recall of each class, then the plain mean over the classes: "
            "rare classes count as much as frequent ones.",
        ),
        Metric(
            "f1_micro",
            "Micro F1",
            "higher",
            "F1 of all decisions together; where every row has one class, that is the accuracy.",
        ),
        Metric(
            "f1_weighted", "Weighted F1", "higher", "F1 of each class, weighted by its share of the rows."
        ),
        Metric(
            "precision",
            "Precision",
            "higher",
            "Of what was found, as relations of any kind, the share that is right.",
        ),
        Metric(
            "recall",
            "Recall",
            "higher",
            "Of what there was to find, as relations of any kind, the share that was found.",
        ),
        Metric("f1", "F1", "higher", "The harmonic mean of precision and recall."),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "higher",
            "The mean over the classes of how many of their rows are recognised: 1 / classes for whoever "
            "always says the same, however common that class is.",
        ),
        Metric(
            "top2_accuracy",
            "Top-2 accuracy",
            "higher",
            "Share of the rows whose true class is one of the two most probable.",
        ),
        Metric(
            "top5_accuracy",
            "Top-5 accuracy",
            "higher",
            "Share of the rows whose true class is one of the five most probable.",
        ),
        Metric(
            "tri_p",
            "Tri-P",
            "higher",
            "Of classes in an order: share of the rows whose most probable class is the true one or its "
            "neighbour.",
        ),
        Metric(
            "seq2hr",
            "Seq2HR",
            "higher",
            "Of classes in an order: share of the rows whose two most probable classes are neighbours and "
            "one of them true.",
        ),
    )
}
"""Metrics of tasks with several classes, which tables head by these titles too."""

AVERAGED = ("auc", "logloss", "ne", "pr_auc", "gauc", "gauc_weighted", "ece", "brier")
"""Metrics whose mean over several labels is reported; a mean of ratios or of base rates would mislead."""


def higher_is_better(name: str) -> bool:
    """Whether a larger value of a metric is better, for ``name`` such as ``"auc"`` or ``"click/auc"``.

    Raises:
        ConfigError: The metric is unknown, or its best value is neither end (``"calibration"``).
    """
    metric = METRICS.get(name.rsplit("/", 1)[-1])
    if metric is None or metric.better == "one":
        usable = ", ".join(m.name for m in METRICS.values() if m.better != "one")
        raise ConfigError(f"metric: {name!r} cannot be monitored; choose one of {usable}")
    return metric.better == "higher"
