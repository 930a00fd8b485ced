"""An estimator as a run folder, and back."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphrec import runs
from graphrec.errors import ConfigError, RunError
from graphrec.history_file import read_history, write_history
from graphrec.module_estimator import as_fitted, remember_arguments
from graphrec.pipelines.tables import TableEncoder
from graphrec.registry import create_model
from graphrec.training import TrainConfig

from . import settings
from .fitting import train
from .reporting import write_run_report

if TYPE_CHECKING:
    from graphrec.ctr.base import CTRModel
    from graphrec.run_writer import RunWriter

    from .classifier import CTRClassifier
    from .preparing import Prepared

_E = TypeVar("_E", bound="CTRClassifier")


def train_into(
    estimator: CTRClassifier, writer: RunWriter, module: CTRModel, prepared: Prepared, config: TrainConfig
) -> None:
    """Train with checkpoints in the unfinished run folder, then fill it and give it its name.

    A fit that cannot be continued leaves nothing; one that was interrupted leaves what ``resume`` needs.
    """
    settings_ = run_config(estimator)
    resumed = writer.start({**settings_, "data_fingerprint": prepared.fingerprint})
    same = {
        "data": prepared.fingerprint,
        "model options": settings.model_options(estimator),
        "embedding_l2": settings.embedding_l2(estimator),
    }
    with writer.training(resumed):
        trained = train(module, prepared.parts, config.replace(resume=writer.resume), writer.partial, same)
    estimator._keep(trained)
    if runs.is_main_process():
        with runs.naming(writer.partial):
            _write(estimator, writer.partial)
        shown = _shown(settings_, config)
        write_run_report(writer.partial / runs.REPORT_FILE, estimator, prepared, trained, shown)
    writer.finish()


def _shown(settings_: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Settings for a reader: what was used where none was given, and lists as text."""
    chosen = config.model_dump()
    used = {key: chosen.get(key) if value is None else value for key, value in settings_.items()}
    lists = {
        key: ", ".join(map(str, value)) for key, value in used.items() if isinstance(value, (list, tuple))
    }
    return {**used, **lists}


def save(estimator: CTRClassifier, folder: Path, *, overwrite: bool) -> Path:
    """Write a fitted estimator as a run folder, without a report."""
    with runs.atomic_folder(folder, overwrite=overwrite) as temporary:
        _write(estimator, temporary)
    return folder


def load(cls: type[_E], folder: Path) -> _E:
    """Read a run folder back into a fitted estimator.

    Raises:
        RunError: A file is missing, damaged or of another version.
    """
    import numpy as np

    info = runs.read_run(folder)
    if info.get("kind") == "recipe":
        raise RunError(
            f"{folder}: is the run of a recipe; the models it kept are its folders repetitions/*/*/model"
        )
    if info.get("estimator", cls.__name__) != cls.__name__:
        raise RunError(f"{folder}: holds a {info['estimator']}, not a {cls.__name__}")
    config = runs.read_config(folder, info)
    estimator = cls()
    known = set(estimator.get_params(deep=False))
    estimator.set_params(**{k: v for k, v in config.items() if k in known and k != "schema"})
    remember_arguments(estimator)
    try:
        estimator.encoder_ = TableEncoder.load(folder / runs.ENCODER_FOLDER)
        module = create_model(info["model"], estimator.encoder_.spec, **info["model_options"])
        estimator._classes = [np.asarray(pair) for pair in info["classes"]]
    except (OSError, KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{folder}: is not complete ({type(error).__name__}: {error}); fit again") from error
    runs.load_weights(folder / runs.MODEL_FILE, module)
    estimator.module_ = module.eval()
    estimator.schema_, estimator.leaks_ = estimator.encoder_.schema, info.get("leaks", [])
    estimator.feature_names_in_ = np.asarray(info["features"], dtype=object)
    estimator.n_features_in_ = len(estimator.feature_names_in_)
    estimator.classes_ = estimator._classes[0] if len(estimator._classes) == 1 else estimator._classes
    estimator.from_arrays_ = info["from_arrays"]
    estimator.metrics_ = runs.read_json(folder / runs.METRICS_FILE)
    estimator.history_ = read_history(folder / runs.HISTORY_FILE)
    estimator._facts = {key: info[key] for key in ("seed", "data", "source")}
    return estimator


def run_config(estimator: CTRClassifier) -> dict[str, Any]:
    """Everything that a run was asked for, as plain values: constructor arguments, then the data's."""
    params = {**estimator.get_params(deep=False), "random_state": estimator._facts["seed"]}
    params["schema"] = "schema.yaml" if params["schema"] is not None else None
    return {**params, **estimator._facts["source"]}


def _write(estimator: CTRClassifier, folder: Path) -> None:
    from graphrec.pipelines.tables import TableSchema

    estimator = as_fitted(estimator)
    schema: TableSchema = estimator.schema_
    runs.save_weights(folder / runs.MODEL_FILE, estimator.module_)
    runs.write_yaml(folder / runs.CONFIG_FILE, run_config(estimator))
    schema.to_yaml(folder / "schema.yaml")
    estimator.encoder_.save(folder / runs.ENCODER_FOLDER)
    runs.write_json(folder / runs.METRICS_FILE, estimator.metrics_)
    write_history(folder / runs.HISTORY_FILE, estimator.history_)
    runs.write_json(folder / runs.RUN_FILE, _info(estimator))


def _info(estimator: CTRClassifier) -> dict[str, Any]:
    import torch

    from graphrec import __version__

    module = estimator.module_
    return {
        "format_version": runs.FORMAT_VERSION,
        "graphrec": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "estimator": type(estimator).__name__,
        "model": estimator.model,
        "model_options": settings.model_options(estimator),
        "parameters": sum(p.numel() for p in module.parameters()),
        "classes": [[_native(v) for v in pair] for pair in estimator._classes],
        "features": [str(name) for name in estimator.feature_names_in_],
        "from_arrays": estimator.from_arrays_,
        "settings": list(run_config(estimator)),
        "leaks": estimator.leaks_,
        "spec": estimator.encoder_.spec.to_dict(),
        **estimator._facts,
    }


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
