"""What a report is made of: plain Python values and numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphrec.metrics import Scores

PARTS = {"train": "Training", "valid": "Validation", "test": "Test"}
"""Titles of the parts of the data, in the order of tables."""


@dataclass
class FieldSummary:
    """One row of the report's table of fields.

    Args:
        name: Column, or derived column.
        role: ``"categorical"``, ``"numeric"``, ``"sequence"`` …
        size: Size of its vocabulary; None for a number.
        nulls: Share of rows without a value; None when it was not counted.
        unseen: Share of rows whose category is not in the vocabulary; None likewise.
        note: Anything else, such as how a number was transformed.
    """

    name: str
    role: str
    size: int | None = None
    nulls: float | None = None
    unseen: float | None = None
    note: str = ""


@dataclass
class ReportData:
    """Everything that `write_report` shows; what is left empty is left out of the page.

    Args:
        model: Name of the model.
        labels: Names of the T labels.
        data: Where the rows came from, such as a file name.
        title: Heading; made from the label and the model when empty.
        model_facts: More of the model, as it is shown: ``{"paper": "https://…", "parameters": "201,728"}``.
        rows: Rows by part, ``{"train": 80_000, "valid": 10_000}``.
        base_rates: Share of positive rows, ``{"train": {"click": 0.2}}``, of parts without ``metrics``.
        fields: The inputs.
        metrics: What `graphrec.metrics.BinaryMetrics.compute` returned, by part.
        evaluated: Part of ``y`` and ``p`` and of the headline; when empty, the last of train, valid and test
            that has metrics.
        y: (N,) or (N, T) labels of that part, NaN for missing; None when there are none to draw.
        p: Probabilities of the same shape.
        weights: (N,) sample weights, or None.
        history: Rows of `graphrec.training.History`.
        importance: Field names and values, most important or not first.
        importance_note: How they were measured.
        interactions: (F, F) matrix and F names.
        interactions_note: How it was measured.
        config: Settings, shown as they are.
        command: Shell command or code that repeats the run.
        seed: Random seed.
        versions: Versions by package.
        fingerprint: Fingerprint of the data.
        seconds: Time that fitting took.
        created: When, as text.
        warnings: Sentences for the top of the page, such as a column that gives the label away.
    """

    model: str
    labels: Sequence[str] = ("label",)
    data: str = ""
    title: str = ""
    model_facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    base_rates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fields: Sequence[FieldSummary] = ()
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    evaluated: str = ""
    y: np.ndarray | None = None
    p: np.ndarray | None = None
    weights: np.ndarray | None = None
    history: Sequence[Mapping[str, Any]] = ()
    importance: tuple[Sequence[str], Sequence[float]] | None = None
    importance_note: str = ""
    interactions: tuple[Any, Sequence[str]] | None = None
    interactions_note: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    seconds: float | None = None
    created: str = ""
    warnings: Sequence[str] = ()

    @property
    def parts(self) -> list[str]:
        """Parts that have metrics, train, valid and test first."""
        return sorted(self.metrics, key=lambda n: list(PARTS).index(n) if n in PARTS else len(PARTS))

    @property
    def shown(self) -> str:
        """The part that the headline and the curves are of; "" when nothing was evaluated."""
        known = [part for part in PARTS if part in self.metrics]
        return self.evaluated or (known[-1] if known else next(iter(self.metrics), ""))

    def of(self, part: str, label: str) -> dict[str, float | None]:
        """The metrics of one label in one part."""
        values = self.metrics.get(part, {})
        if len(self.labels) == 1:
            return dict(values)
        prefix = f"{label}/"
        return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}

    def scores(self, label: str) -> Scores | None:
        """The predictions of one label, sorted; None when there are none.

        Weights are scaled to add up to the number of equal rows that tell as much (Kish, 1965), so that
        intervals may take them for counts.
        """
        if self.y is None or self.p is None or not len(self.y):
            return None
        y, p = (np.asarray(a).reshape(len(self.y), -1) for a in (self.y, self.p))
        t = list(self.labels).index(label)
        return Scores.of(y[:, t], p[:, t], self._counted(~np.isnan(y[:, t].astype(float))))

    def _counted(self, known: np.ndarray) -> np.ndarray | None:
        if self.weights is None:
            return None
        weights = np.asarray(self.weights, dtype=np.float64)
        squares = float(weights[known] @ weights[known])
        return weights * (weights[known].sum() / squares) if squares else weights
