"""Several models on one encoding of one table."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from graphrec import registry
from graphrec.errors import ConfigError, GraphrecError, RunError
from graphrec.run_writer import RunWriter
from graphrec.runs import REPORT_FILE, atomic_file, is_main_process, naming, read_json, write_json
from graphrec.training.arguments import seed_of

from . import settings
from .preparing import Prepared, prepare

if TYPE_CHECKING:
    import polars as pl

    from .classifier import CTRClassifier

TABLE_FILE = "comparison.json"
_COLUMNS = ("auc", "logloss", "ne", "pr_auc", "gauc", "ece")


def compare_models(
    estimator: CTRClassifier,
    models: Sequence[str],
    data: Any,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda name: None,
    by_model: Mapping[str, Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> tuple[pl.DataFrame, list[CTRClassifier]]:
    """Fit each model with the settings of ``estimator``, on the same split of the same rows, encoded once.

    Args:
        estimator: The common settings; its ``model`` is not used.
        models: Names.
        data: As for `CTRClassifier.fit`, whose further keyword arguments ``arguments`` are.
        run_dir: Write a folder there with the table (CSV, JSON, HTML) and each model's run folder. While
            models are missing it is called ``NAME.partial``.
        resume: Continue the unfinished comparison of that folder: fit only what it lacks.
        overwrite: Replace that folder.
        announce: Told each name before it is fitted.
        by_model: Settings of single models over the common ones: arguments of `CTRClassifier`, fields of
            `TrainConfig` and options of the model, by the model's name.

    Returns:
        One row per model, best AUC first: ``model``, the metrics of the test part (of the validation part
        when there is none), ``parameters``, ``epochs`` and ``seconds``, or ``error`` where it could not be
        fitted; and the estimators in the order of ``models``.

    Raises:
        ConfigError: A name is unknown or comes twice, no model is named, a setting is wrong, or no model
            can be fitted.
        RunError: The folder exists, its unfinished comparison has other settings, or it cannot be written.
    """
    _check_names(models)
    by_model = by_model or {}
    if foreign := [name for name in by_model if name not in models]:
        raise ConfigError(f"{foreign[0]}: has settings but is not compared; compared are {', '.join(models)}")
    estimators = [_own(estimator, name, by_model.get(name, {})) for name in models]
    seed = seed_of(estimator.random_state)
    for each in estimators:
        settings.check(each, seed)
    writer = RunWriter(run_dir, resume=resume, overwrite=overwrite) if run_dir is not None else None
    prepared = prepare(estimator, data, seed=seed, **arguments)
    if writer is not None:
        asked = {**estimator.get_params(deep=False), "model": None, **prepared.source}
        asked |= {"by_model": by_model} if by_model else {}
        writer.start({**asked, "data_fingerprint": prepared.fingerprint})
    rows: dict[str, dict[str, Any]] = _finished(writer)
    for place, each in enumerate(estimators):
        if writer is not None and each.model in rows and "error" not in rows[each.model]:
            loaded = _load(writer.partial / each.model)
            if loaded is not None:
                estimators[place] = loaded
                continue
        announce(each.model)
        rows[each.model] = _fit(each, prepared, _part(writer, each.model), seed)
        if writer is not None and is_main_process():
            _keep_rows(writer.partial, rows)
    rows = {name: rows[name] for name in models}
    if all("error" in row for row in rows.values()):
        if writer is not None:
            writer.discard()
        raise ConfigError("; ".join(f"{name}: {row['error']}" for name, row in rows.items()))
    table = _table(rows)
    if writer is not None and is_main_process():
        _write(writer, table, models, prepared)
    return table, estimators


def _own(estimator: CTRClassifier, model: str, changes: Mapping[str, Any]) -> CTRClassifier:
    """The estimator of one model: the common settings, then its own."""
    own = clone(estimator).set_params(model=model)
    try:
        return own.set_params(**settings.split_settings(own, changes))
    except ConfigError as error:
        raise ConfigError(f"{model}.{error}") from error


def _table(rows: dict[str, dict[str, Any]]) -> pl.DataFrame:
    import polars as pl

    table = pl.DataFrame(list(rows.values()), infer_schema_length=None)
    return table.sort("auc", descending=True, nulls_last=True, maintain_order=True)


def _finished(writer: RunWriter | None) -> dict[str, dict[str, Any]]:
    """The rows that an earlier attempt left; without them, as after a power cut, all is fitted again."""
    file = None if writer is None else writer.partial / TABLE_FILE
    if file is None or not file.exists():
        return {}
    try:
        return dict(read_json(file))
    except (RunError, TypeError, ValueError) as error:
        message = error if isinstance(error, RunError) else f"{file}: holds no rows by model"
        warnings.warn(f"{message}; its models are fitted again", UserWarning, stacklevel=2)
        return {}


def _load(folder: Path) -> CTRClassifier | None:
    """A finished model; one that cannot be read, as after a power cut, is removed, to be fitted again."""
    from .classifier import CTRClassifier

    try:
        return CTRClassifier.load(folder)
    except RunError as error:
        warnings.warn(f"{error}; that model is fitted again", UserWarning, stacklevel=2)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _part(writer: RunWriter | None, model: str) -> RunWriter | None:
    if writer is None:
        return None
    # A run that is finished here, but not in the table, was stopped in between: it is fitted again.
    return RunWriter(writer.partial / model, resume=True, overwrite=True)


def _keep_rows(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    with atomic_file(folder / TABLE_FILE) as file:
        write_json(file, rows)


def _write(writer: RunWriter, table: pl.DataFrame, models: Sequence[str], prepared: Prepared) -> None:
    from graphrec.report import write_comparison

    with naming(writer.partial):
        table.write_csv(writer.partial / "comparison.csv")
    rows = [{**row, "report": _report(writer.partial, row["model"])} for row in table.to_dicts()]
    write_comparison(
        writer.partial / "comparison.html",
        rows,
        title=f"{', '.join(models)} for {', '.join(prepared.schema.labels)}",
        data=prepared.table.name,
        created=time.strftime("%Y-%m-%d %H:%M %Z"),
    )
    writer.finish()


def _report(folder: Path, model: str) -> str | None:
    """The page of a model's own run as a path inside the folder, so that both can be moved."""
    page = f"{model}/{REPORT_FILE}"
    return page if (folder / page).exists() else None


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
    except RunError:  # of the disk, or a lost process: no fault of the model, and to be resumed
        raise
    except GraphrecError as error:
        return {"model": estimator.model, "error": str(error).removeprefix(f"{estimator.model}: ")}
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
