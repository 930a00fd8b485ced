"""A fitted `HypergraphClassifier` as a folder of plain files, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

import graphrec
from graphrec import runs
from graphrec.errors import ConfigError, RunError
from graphrec.module_estimator import as_fitted, remember_arguments

from .lighthgnn import Reliability
from .stages import STUDENTS, build

if TYPE_CHECKING:
    from .classifier import HypergraphClassifier

_E = TypeVar("_E", bound="HypergraphClassifier")
KIND = "HypergraphClassifier"
HISTORY_FILE = "history.json"
TEACHER_FILE = "teacher.safetensors"
RELIABILITY_FILE = "reliability.safetensors"


def save(estimator: HypergraphClassifier, folder: Path, *, teacher: bool, overwrite: bool) -> Path:
    """Write it; see `HypergraphClassifier.save`."""
    from safetensors.torch import save_file

    estimator = as_fitted(estimator)
    with runs.atomic_folder(folder, overwrite=overwrite) as temporary:
        runs.save_weights(temporary / runs.MODEL_FILE, estimator.module_)
        if teacher and estimator.teacher_ is not None:
            runs.save_weights(temporary / TEACHER_FILE, estimator.teacher_)
        if teacher and estimator.reliability_ is not None:
            parts = {key: one.cpu().contiguous() for key, one in vars(estimator.reliability_).items()}
            save_file(parts, str(temporary / RELIABILITY_FILE))
        params = {**estimator.get_params(deep=False), "random_state": estimator._facts["seed"]}
        runs.write_yaml(temporary / runs.CONFIG_FILE, params)
        runs.write_json(temporary / runs.METRICS_FILE, estimator.metrics_)
        runs.write_json(temporary / HISTORY_FILE, estimator.history_)
        runs.write_json(temporary / runs.RUN_FILE, {**_facts(estimator), "settings": list(params)})
    return folder


def _facts(estimator: HypergraphClassifier) -> dict[str, Any]:
    return {
        "format_version": runs.FORMAT_VERSION,
        "kind": KIND,
        "graphrec": graphrec.__version__,
        "torch": torch.__version__,
        "model": estimator.model,
        "teacher": estimator._teacher_shape if estimator.teacher_ is not None else None,
        "classes": estimator.classes_.tolist(),
        "features": estimator.n_features_in_,
        **estimator._facts,
    }


def load(cls: type[_E], folder: Path) -> _E:
    """Read it; see `HypergraphClassifier.load`."""
    info = runs.read_run(folder)
    if info.get("kind") != KIND:
        raise RunError(f"{folder}: holds a {info.get('kind', 'CTR model')}, not a {KIND}")
    estimator = cls()
    params = runs.read_config(folder, info)
    try:
        estimator.set_params(**{**params, "device": "cpu"})
        remember_arguments(estimator)
        estimator.classes_, estimator.n_features_in_ = np.asarray(info["classes"]), int(info["features"])
        estimator._facts = {"seed": info["seed"], "data": info["data"]}
        shape = (estimator.n_features_in_, len(estimator.classes_))
        estimator.module_ = build(*shape, **estimator._shape(estimator.model)).eval()
        runs.load_weights(folder / runs.MODEL_FILE, estimator.module_)
        estimator._teacher_shape = info["teacher"]
        estimator.teacher_ = None
        if estimator.model in STUDENTS and (folder / TEACHER_FILE).is_file():
            estimator.teacher_ = build(*shape, **info["teacher"]).eval()
            runs.load_weights(folder / TEACHER_FILE, estimator.teacher_)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise RunError(f"{folder}: is not complete ({type(error).__name__}: {error}); fit again") from error
    estimator.reliability_ = _read_reliability(folder / RELIABILITY_FILE)
    estimator.metrics_ = runs.read_json(folder / runs.METRICS_FILE)
    estimator.history_ = runs.read_json(folder / HISTORY_FILE)
    return estimator


def _read_reliability(path: Path) -> Reliability | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        return Reliability(**load_file(str(path)))
    except (OSError, SafetensorError, TypeError) as error:
        raise RunError(f"{path}: does not hold reliabilities ({error})") from error
