"""Put together what a run's report shows."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec import registry
from graphrec.explain import Explanation, explain_model, sample_batch
from graphrec.pipelines.tables import FieldKind, describe_leaks
from graphrec.report import FieldSummary, ReportData, write_report
from graphrec.report.tables import part_title

if TYPE_CHECKING:
    from graphrec.pipelines.tables import Batch, FeatureSpec

    from .classifier import CTRClassifier
    from .fitting import Trained
    from .preparing import Prepared

_EXPLAINED_ROWS = 20_000
_PACKAGES = ("graphrec", "torch", "polars", "numpy", "lightning-fabric")


def write_run_report(
    path: Path, estimator: CTRClassifier, prepared: Prepared, trained: Trained, config: dict[str, Any]
) -> Explanation:
    """Write ``report.html`` for a run; returns the explanation that was made for it."""
    found = trained.predictions
    sample = sample_batch(prepared.parts[found.part], _EXPLAINED_ROWS)
    explained = explain_model(trained.module, sample, model=estimator.model, repeats=1)
    drops, part = explained.importance.drop_nulls(), part_title(found.part).lower()
    rates = {
        name: _base_rates(encoded.labels(), encoded.weights(), prepared.schema.labels)
        for name, encoded in prepared.parts.items()
    }
    write_report(
        path,
        ReportData(
            model=estimator.model,
            labels=prepared.schema.labels,
            data=prepared.table.name,
            model_facts=_model_facts(estimator, trained),
            rows={name: len(part) for name, part in prepared.parts.items()},
            base_rates=rates,
            fields=_fields(prepared, sample),
            metrics=trained.metrics,
            evaluated=found.part,
            y=found.labels,
            p=found.scores,
            weights=found.weights,
            history=trained.history.rows,
            importance=(drops["field"].to_list(), drops["auc_drop"].to_list()) if len(drops) else None,
            importance_note=f"AUC lost when it is shuffled among {explained.rows:,} {part} rows.",
            interactions=None if explained.matrix is None else (explained.matrix, explained.fields),
            interactions_note="What the model itself says of each pair of fields; a mean over the same rows.",
            config=config,
            seed=int(estimator._facts["seed"]),
            versions={name: version(name) for name in _PACKAGES},
            fingerprint=prepared.fingerprint,
            seconds=trained.seconds,
            created=time.strftime("%Y-%m-%d %H:%M %Z"),
            warnings=[describe_leaks(prepared.leaks)] if prepared.leaks else [],
        ),
    )
    return explained


def _model_facts(estimator: CTRClassifier, trained: Trained) -> dict[str, Any]:
    card = registry.card(estimator.model)
    parameters = sum(p.numel() for p in trained.module.parameters())
    best = trained.history.best
    facts = {
        "system": card.title,
        "paper": card.paper,
        "parameters": f"{parameters:,}",
        "stopped by": trained.history.stopped,
        "best epoch": best["epoch"] if best else None,
    }
    return {key: value for key, value in facts.items() if value}


def _base_rates(labels: Any, weights: Any, names: tuple[str, ...]) -> dict[str, float]:
    """The share of positive rows of each label, weighted as its metrics are."""
    weights = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    rates = {}
    for t, name in enumerate(names):
        known = ~np.isnan(labels[:, t])
        if weights[known].sum() > 0:
            rates[name] = float(np.average(labels[known, t], weights=weights[known]))
    return rates


def _fields(prepared: Prepared, sample: Batch) -> list[FieldSummary]:
    """One row per encoded field, with the share of nulls and of unseen categories among the sampled rows."""
    spec: FeatureSpec = prepared.encoder.spec
    places = dict.fromkeys(("categorical", "numeric", "lists"), 0)
    rows = []
    for field in spec.fields:
        part = field.kind.value if field.kind in (FieldKind.CATEGORICAL, FieldKind.NUMERIC) else "lists"
        values = getattr(sample.features, part)
        column = values[places[part]] if part == "lists" else values[:, places[part]]
        places[part] += 1
        nulls = (
            column.isnan() if part == "numeric" else (column == 0).all(1) if part == "lists" else column == 0
        )
        unseen = None if part == "numeric" else float((column == 1).float().mean())
        rows.append(
            FieldSummary(
                field.name, field.kind.value, field.size or None, float(nulls.float().mean()), unseen
            )
        )
    return rows
