"""Several models on one encoding of one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from graphrec import registry
from graphrec.errors import ConfigError, GraphrecError
from graphrec.runs import RunWriter

from . import settings
from .preparing import Prepared, prepare

if TYPE_CHECKING:
    import polars as pl

    from .classifier import CTRClassifier

_COLUMNS = ("auc", "logloss", "ne", "pr_auc", "gauc", "ece")


def compare_models(
    estimator: CTRClassifier,
    models: Sequence[str],
    data: Any,
    *,
    run_dir: str | Path | None = None,
    announce: Callable[[str], None] = lambda name: None,
    **arguments: Any,
) -> tuple[pl.DataFrame, list[CTRClassifier]]:
    """Fit each model with the settings of ``estimator``, on the same split of the same rows, encoded once.

    Args:
        estimator: The common settings; its ``model`` is not used.
        models: Names.
        data: As for `CTRClassifier.fit`, whose further keyword arguments ``arguments`` are.
        run_dir: Write each model's run folder into this folder.
        announce: Told each name before it is fitted.

    Returns:
        One row per model, best AUC first: ``model``, the metrics of the test part (of the validation part
        when there is none), ``parameters``, ``epochs`` and ``seconds``, or ``error`` where it could not be
        fitted; and the estimators in the order of ``models``.

    Raises:
        ConfigError: A name is unknown or comes twice, no model is named, or none can be fitted.
    """
    import polars as pl

    _check_names(models)
    estimators = [clone(estimator).set_params(model=name) for name in models]
    seed = settings.seed(estimator)
    for each in estimators:
        settings.check(each, seed)
    prepared = prepare(estimator, data, seed=seed, **arguments)
    rows = []
    for each in estimators:
        announce(each.model)
        writer = RunWriter(Path(run_dir) / each.model) if run_dir is not None else None
        rows.append(_fit(each, prepared, writer, seed))
    if all("error" in row for row in rows):
        raise ConfigError("; ".join(row["error"] for row in rows))
    table = pl.DataFrame(rows, infer_schema_length=None)
    return table.sort("auc", descending=True, nulls_last=True, maintain_order=True), estimators


def _check_names(models: Sequence[str]) -> None:
    if not models:
        raise ConfigError(f"models: name some of {', '.join(registry.list_models(task='ctr'))}")
    for name in models:
        registry.card(name)
        if list(models).count(name) > 1:
            raise ConfigError(f"models: {name} is named twice")


def _fit(estimator: CTRClassifier, prepared: Prepared, writer: RunWriter | None, seed: int) -> dict[str, Any]:
    """A row of the table; one that says why, for a model that cannot be fitted."""
    start = time.perf_counter()
    try:
        estimator.fit_prepared(prepared, writer=writer, seed=seed)
    except GraphrecError as error:
        return {"model": estimator.model, "error": str(error)}
    return _row(estimator, time.perf_counter() - start)


def _row(estimator: CTRClassifier, seconds: float) -> dict[str, Any]:
    part = list(estimator.metrics_)[-1]
    metrics = estimator.metrics_[part]
    values = {name: metrics[name] for name in _COLUMNS if name in metrics}
    values |= {name: value for name, value in metrics.items() if name.endswith("/auc")}
    parameters = sum(p.numel() for p in estimator.module_.parameters())
    epochs = estimator.history_[-1]["epoch"] if estimator.history_ else 0
    facts = {"part": part, "parameters": parameters, "epochs": float(epochs), "seconds": round(seconds, 2)}
    return {"model": estimator.model, **values, **facts}
