"""What the estimators over one network share: metrics of classes, training by the engine, saving, loading."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphrec import runs
from graphrec.errors import ConfigError, DataError, RunError
from graphrec.history_file import read_history, write_history
from graphrec.metrics import class_metrics
from graphrec.metrics.growing import GrowingArray
from graphrec.training import TrainConfig, Trainer
from graphrec.training.arguments import seed_of
from graphrec.training.compiled import refuse_ragged
from graphrec.training.interfaces import BatchSource

if TYPE_CHECKING:
    from graphrec.pipelines.index_splits import IndexSplit


_E = TypeVar("_E", bound=BaseEstimator)

Measure = Callable[..., "dict[str, float | None]"]
"""Metrics of labels (n,), probabilities (n, C) and, only where rows have them, weights (n,)."""


class ClassMetrics:
    """The trainer's `Metrics` for classes.

    Args:
        measure: What computes them; None for `class_metrics`: accuracy, log loss, macro F1 and, of two
            classes, AUC.
    """

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = class_metrics if measure is None else measure
        self._fed: dict[str, GrowingArray] = {}

    def update(self, y: Any, p: Any, weights: Any = None, groups: Any = None) -> None:
        """Add labels (n,) and probabilities (n, C), with weights (n,) or without."""
        self.merge({"labels": y, "scores": p, "weights": weights})

    def compute(self) -> dict[str, float | None]:
        """The values; None for what is undefined."""
        if not self._fed:
            return {"accuracy": None, "logloss": None, "f1_macro": None}
        fed = self.state()
        return self._measure(fed["labels"], fed["scores"], *([fed["weights"]] if "weights" in fed else []))

    def state(self) -> Mapping[str, Any]:
        """All that was fed."""
        return {name: rows.array for name, rows in self._fed.items()}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what another process was fed."""
        for name, values in state.items():
            if values is not None:
                self._fed.setdefault(name, GrowingArray()).append(np.asarray(values))


class ModuleEstimator(ClassifierMixin, BaseEstimator):
    """Base of the estimators that fit one network: graphs, nodes, EEG, relations, images.

    A subclass stores its constructor's arguments, among them ``epochs``, ``batch_size``, ``learning_rate``,
    ``weight_decay``, ``patience``, ``monitor``, ``accelerator``, ``train_options``, ``random_state`` and
    ``verbose``; builds its module in ``_build(**facts)`` from plain values that ``fit`` puts into
    ``facts_``; and sets ``classes_`` and ``module_``. Then `_train`, `save` and `load` work.
    """

    classes_: NDArray[Any]
    module_: nn.Module
    facts_: dict[str, Any]
    _asked: dict[str, Any]
    history_: list[dict[str, Any]]
    metrics_: dict[str, dict[str, float | None]]

    _batch_source: type | None = None
    """What cuts the batches; that of a subclass decides whether they can be compiled for."""
    _measure: Measure | None = None
    """Metrics beside the ordinary ones; see `ClassMetrics`."""

    def _build(self, **facts: Any) -> nn.Module:
        raise NotImplementedError

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; ``save`` writes them and ``load`` passes them back.

        A generator of seeds is written as the seed that it gave. What else is in it is for the reader, such
        as where the data came from.
        """
        found = self.get_params(deep=False)
        if isinstance(found["random_state"], np.random.RandomState):
            found["random_state"] = self.facts_["seed"]
        return found

    def _write_more(self, folder: Path) -> None:
        """Files of a subclass beside those that ``save`` writes."""

    def _read_more(self, folder: Path) -> None:
        """Read what `_write_more` wrote, before the module is built."""

    def _seed(self) -> int:
        """See `seed_of`."""
        return seed_of(self.random_state)  # type: ignore[attr-defined]  # an argument of each subclass

    def _config(self, seed: int, **changes: Any) -> TrainConfig:
        names = (
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "patience",
            "monitor",
            "accelerator",
        )
        values = {name: getattr(self, name) for name in names}
        values |= {"scheduler": "none", "seed": seed, "progress": bool(self.verbose)}  # type: ignore[attr-defined]
        options = self.train_options or {}  # type: ignore[attr-defined]  # an argument of each subclass
        config = TrainConfig(**{**values, **options, **changes})
        if config.compile:
            refuse_ragged(self._batch_source)
        return config

    def _train(
        self, module: nn.Module, train: BatchSource, valid: BatchSource | None, config: TrainConfig
    ) -> list[dict[str, Any]]:
        """Train a module; it ends on the CPU, in evaluation mode, with its best weights."""
        history = Trainer(config).fit(module, train, valid, metrics=ClassMetrics(self._measure))
        module.cpu().eval()
        return history.rows

    def measured(self, classes: int) -> list[str]:
        """Names of what validation measures of so many classes; ``monitor`` is one of them."""
        return list(ClassMetrics(self._measure)._measure(np.arange(classes), np.eye(classes)))

    def _predict(self, source: BatchSource) -> NDArray[np.float32]:
        """Probabilities (rows, classes) of a source.

        Raises:
            DataError: Some are not finite.
        """
        check_is_fitted(self, "module_")
        found = Trainer(self._config(0, progress=False, compile=False)).predict(self.module_, source)
        wrong = np.flatnonzero(~np.isfinite(found).all(1))
        if wrong.size:
            raise DataError(
                f"{type(self).__name__}: {wrong.size} of {len(found)} rows have no finite probability, the "
                f"first is row {wrong[0]}; scale features of such a size, or fit with a lower learning_rate"
            )
        return found

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the fitted estimator as a folder: weights, arguments, metrics and history in plain files.

        Raises:
            RunError: The folder exists and ``overwrite`` is false.
        """
        check_is_fitted(self, "module_")
        with runs.atomic_folder(folder, overwrite=overwrite) as temporary:
            self._write(temporary)
        return Path(folder)

    def _write(self, folder: Path) -> None:
        """All files of `save`, into a folder that exists."""
        runs.save_weights(folder / runs.MODEL_FILE, self.module_)
        runs.write_yaml(folder / runs.CONFIG_FILE, as_fitted(self)._arguments())
        runs.write_json(folder / runs.METRICS_FILE, self.metrics_)
        write_history(folder / runs.HISTORY_FILE, self.history_)
        runs.write_json(folder / runs.RUN_FILE, self._info())
        self._write_more(folder)

    def _info(self) -> dict[str, Any]:
        """The contents of ``run.json``."""
        from graphrec import __version__

        return {
            "format_version": runs.FORMAT_VERSION,
            "graphrec": __version__,
            "torch": torch.__version__,
            "estimator": type(self).__name__,
            "classes": self.classes_.tolist(),
            "facts": self.facts_,
            "settings": list(as_fitted(self)._arguments()),
        }

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            RunError: A file is missing, damaged, or of another estimator or version.
        """
        folder = Path(folder)
        info = runs.read_run(folder)
        if info.get("estimator") != cls.__name__:
            found = info.get("estimator") or info.get("kind") or "something unnamed"
            raise RunError(f"{folder}: holds a {found}, not a {cls.__name__}")
        try:
            config, known = runs.read_config(folder, info), cls().get_params(deep=False)
            fitted = cls(**{key: value for key, value in config.items() if key in known})
            fitted.facts_, fitted.classes_ = info["facts"], np.asarray(info["classes"])
            remember_arguments(fitted)
            fitted._read_more(folder)
            module = fitted._build(**fitted.facts_)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise RunError(
                f"{folder}: is not complete ({type(error).__name__}: {error}); fit again"
            ) from error
        runs.load_weights(folder / runs.MODEL_FILE, module)
        fitted.module_ = module.eval()
        fitted.metrics_ = runs.read_json(folder / runs.METRICS_FILE)
        fitted.history_ = read_history(folder / runs.HISTORY_FILE)
        return fitted


def remember_arguments(estimator: BaseEstimator) -> None:
    """Keep the arguments that a fit goes by, for `as_fitted`, and drop the module of an earlier fit.

    A fit that fails or is stopped then leaves an estimator that is not fitted, not old weights with the
    classes and columns of new data.
    """
    estimator._asked = estimator.get_params(deep=False)
    vars(estimator).pop("module_", None)


def as_fitted(estimator: _E) -> _E:
    """The estimator with the arguments that it was fitted with, whatever ``set_params`` said since.

    That is what belongs beside its weights when they are saved.
    """
    found: _E = copy.copy(estimator).set_params(**estimator._asked)
    return found


def check_split(split: IndexSplit, total: int, what: str) -> IndexSplit:
    """Refuse a split of another number of things, or without any to train on, or what is no split.

    Raises:
        ConfigError: It is.
    """
    if not hasattr(split, "total"):
        raise ConfigError(
            f"split: should be a graphrec.pipelines.index_splits.IndexSplit, found {type(split).__name__}"
        )
    if split.total != total:
        raise ConfigError(f"{split.name}: splits {split.total} {what}, there are {total}")
    if not len(split.train):
        raise ConfigError(f"{split.name}: no {what} to train on")
    return split


def chosen(index: Any, total: int, what: str, *, argument: str = "index") -> NDArray[np.int64]:
    """Numbers of those that a list or a mask names, in its order.

    Args:
        index: Whole numbers (n,) or one alone, a mask (total,), or None for all.
        total: How many there are.
        what: What they are, in the plural.
        argument: Where the index came from.

    Raises:
        DataError: It is neither, or names one that is missing.
    """
    if index is None:
        return np.arange(total)
    found = np.asarray(index)
    if found.dtype == bool and found.shape == (total,):
        return np.flatnonzero(found)
    found = np.atleast_1d(found if found.size else found.astype(np.int64))
    right = f"should be a mask of all {total} {what}, or numbers from 0 to {total - 1}"
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise DataError(f"{argument}: {right}, found {found.dtype} of {found.shape}")
    wrong = found[(found < 0) | (found >= total)]
    if len(wrong):
        raise DataError(f"{argument}: {right}, found {wrong[0]}")
    return found.astype(np.int64)


def judged_parts(split: IndexSplit) -> dict[str, Tensor]:
    """Of the validation and the test part those that hold anything; else what was trained on."""
    parts = {"valid": split.valid, "test": split.test}
    return {name: index for name, index in parts.items() if len(index)} or {"train": split.train}


def check_two_classes(codes: Tensor, classes: Sequence[Any] | NDArray[Any], name: str, what: str) -> None:
    """Refuse to train on one class.

    Args:
        codes: Class of everything that trains, int64 (n,).
        classes: Their names.
        name: Of the split or the data.
        what: What is classified, in the plural.

    Raises:
        DataError: All are of one class.
    """
    there = codes.unique().tolist()
    if len(there) < 2:
        names = ", ".join(repr(str(classes[c])) for c in there)
        raise DataError(
            f"{name}: all {len(codes)} training {what} are of class {names}; a classifier needs two classes"
        )


def sort_settings(
    estimator: BaseEstimator, changes: Mapping[str, Any], options: Collection[str]
) -> dict[str, Any]:
    """Sort free settings into constructor arguments, fields of `TrainConfig` and options of the model.

    Args:
        estimator: With arguments ``train_options`` and ``model_options``, which are added to.
        changes: Settings by name.
        options: Those that the model takes.

    Returns:
        Constructor arguments.

    Raises:
        ConfigError: A key is none of these; the message lists the nearest.
    """
    arguments, training = set(estimator.get_params(deep=False)), set(TrainConfig.model_fields)
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key in arguments:
            found[key] = value
        elif key in training:
            found.setdefault("train_options", dict(estimator.train_options or {}))[key] = value
        elif key in options:
            found.setdefault("model_options", dict(estimator.model_options or {}))[key] = value
        else:
            near = difflib.get_close_matches(key, arguments | training | set(options), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"{key}: no such setting{hint}")
    return found
