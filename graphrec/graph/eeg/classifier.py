"""`EEGClassifier`: classes of windows of EEG as a scikit-learn estimator."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphrec import runs
from graphrec.errors import ConfigError, DataError
from graphrec.metrics.classes import accuracy
from graphrec.module_estimator import (
    ModuleEstimator,
    check_split,
    check_two_classes,
    chosen,
    judged_parts,
    remember_arguments,
)
from graphrec.pipelines.eeg import (
    Montage,
    Preparation,
    Windows,
    find_montage,
    open_labelled,
    refuse_shared_samples,
    split_windows,
)
from graphrec.pipelines.index_splits import IndexSplit
from graphrec.registry import card, create_model
from graphrec.training.arguments import check_number, check_training
from graphrec.training.seeding import seeded

from .batches import WindowBatches
from .fitting import choose_band, labels_of, scale_of, scaled, training_batches
from .histn import Gates
from .scores import eeg_metrics, mean_by_recording
from .weights import freeze_weights, take_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_FILE = "schema.yaml"


class EEGClassifier(ModuleEstimator):
    """Classifies windows of EEG recordings by HiSTN (arXiv:2408.15255).

    Args:
        model: A model of ``list_models(task="eeg")``.
        montage: Electrodes in regions: ``"epoc"``, ``"epoc3"``, ``"epoc5"``, a `Montage`, or a mapping of the
            form of `Montage.to_dict`. Recordings may have further channels; they are not looked at.
        model_options: Keyword arguments of the model; see `HiSTN`.
        window: Seconds of a window; arrays bring their own.
        stride: Seconds from one window to the next; None for ``window``, so that none overlap.
        outliers: What to do with spikes: ``"interpolate"``, ``"clip"``, ``"mark"`` or ``"refuse"``; None
            leaves them. See `treat_outliers`.
        reference: ``"average"`` takes the mean over the electrodes off every sample; None keeps the file's.
        band: (low, high) hertz to keep, either may be None; the filter looks back only. ``"auto"`` takes, of
            `candidate_bands`, the one whose powers tell the classes best under folds inside the training
            windows, see `band_losses`. None for no filter.
        scaling: ``"standard"``: every channel minus its mean over its standard deviation, both of the
            training windows; ``"max_abs"``: over the largest magnitude of its recording, as HiSTN's scripts
            do, which looks at all of a recording; or None.
        centre: Whether each window's mean is taken off.
        mixed: Class of a window that holds several; see `make_windows`.
        balanced: Draw every class equally often in training.
        class_weight: ``"balanced"`` multiplies the loss of a class by how much rarer it is than the
            commonest; None for none.
        split_by: What ``fit`` holds out where it is given no split: the end of each recording (``"time"``),
            whole recordings (``"recording"``) or whole subjects (``"subject"``). Never single windows:
            neighbours are nearly equal, and who trains on one knows the other.
        validation: Share that is held out, to choose the best epoch; 0 for none.
        gap: Seconds left out between the parts of a split along time.
        epochs: Passes over the training windows, at most.
        batch_size: Windows in a step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        patience: Stop after so many epochs without a better one on the validation windows; 0 or None for
            never.
        monitor: Validation metric that decides; see `eeg_metrics`.
        accelerator: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        train_options: Further fields of `graphrec.training.TrainConfig`.
        random_state: Seed of weights, dropout, orders and draws.
        verbose: 1 for a progress bar.

    Attributes:
        classes_: By column of `predict_proba`.
        module_: The fitted network, on the CPU.
        schema_: Channels, rate, samples of a window, classes, montage, the scale of every channel, the band;
            where it was chosen also the loss of each candidate, ``band_losses``.
        history_: A dict per epoch.
        metrics_: ``{"valid": {...}, "test": {...}}`` of the split's parts.
        split_: The split that was used.

    Example:
        >>> model = EEGClassifier(outliers="interpolate", reference="average", epochs=20)
        >>> model.fit("EEG_Eye_State.arff", rate=128, label="eyeDetection")  # doctest: +SKIP
    """

    _measure = staticmethod(eeg_metrics)
    split_: IndexSplit
    schema_: dict[str, Any]

    def __init__(
        self,
        model: str = "histn",
        *,
        montage: str | Montage | Mapping[str, Any] = "epoc",
        model_options: dict[str, Any] | None = None,
        window: float = 1.0,
        stride: float | None = None,
        outliers: str | None = None,
        reference: str | None = None,
        band: Sequence[float | None] | str | None = None,
        scaling: str | None = "standard",
        centre: bool = False,
        mixed: str = "majority",
        balanced: bool = True,
        class_weight: str | None = None,
        split_by: str = "time",
        validation: float = 0.1,
        gap: float = 0.0,
        epochs: int = 50,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        patience: int | None = None,
        monitor: str = "logloss",
        accelerator: str = "cpu",
        train_options: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.montage = montage
        self.model_options = model_options
        self.window = window
        self.stride = stride
        self.outliers = outliers
        self.reference = reference
        self.band = band
        self.scaling = scaling
        self.centre = centre
        self.mixed = mixed
        self.balanced = balanced
        self.class_weight = class_weight
        self.split_by = split_by
        self.validation = validation
        self.gap = gap
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.monitor = monitor
        self.accelerator = accelerator
        self.train_options = train_options
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        split: IndexSplit | None = None,
        source: EEGClassifier | None = None,
        freeze: str | Sequence[str] = (),
        **how: Any,
    ) -> Self:
        """Train.

        Args:
            X: An `EEGSet`, a `Recording`, `Windows`, a path to ARFF, MATLAB's format, EDF or a table, a data
                frame, or an array (windows, channels, samples) in the order of time.
            y: Classes: of an array's windows; of recordings, one each, in place of their own labels.
            split: Which windows train, validate and test; windows in no part are not looked at. Without a
                validation part nothing stops early.
            source: A fitted classifier whose weights, classes and scale to begin with.
            freeze: Beginnings of the names of weights that stay as they are, such as ``"temporal.kernel"``.
            how: ``rate``, ``label``, ``channels``, ``groups`` ...: see `open_eeg` and `windows_of`.

        Raises:
            DataError: Data, labels or channels do not fit, only one class is there, or windows of different
                parts share samples; names file, recording, row or window.
            ConfigError: An argument is wrong.
        """
        check_training(self.get_params(deep=False))
        self._check_model()
        if source is not None:
            if not isinstance(source, EEGClassifier):
                raise ConfigError(f"source: must be a fitted EEGClassifier, got {type(source).__name__}")
            check_is_fitted(source, "module_")
        seed = self._seed()
        known = None if source is None else source.classes_
        prepare = self._prepare(find_montage(self.montage), self._first_band(source))
        losses: dict[str, float] = {}
        if self.band == "auto" and not isinstance(X, Windows | np.ndarray | Tensor):
            X, y, how = open_labelled(X, y, **how), None, {}  # read once for all bands
        source = copy.copy(source)  # it may be this very one
        remember_arguments(self)
        windows, self.classes_ = prepare(X, y, classes=known, **how)
        self.split_ = self._checked_split(windows, split, seed)
        if self.band == "auto" and source is None:
            prepare, losses = choose_band(
                prepare,
                lambda one: one(X, y, **how)[0],
                windows.rate,
                self.split_.train,
                by=self.split_by,
                gap=round(self.gap * windows.rate),
            )
            windows, _ = prepare(X, y, classes=known, **how)
        self._describe(windows, source, prepare.band, losses)
        self.facts_ = {"classes": len(self.classes_), "seed": seed}
        with seeded(seed):
            module = self._build(**self.facts_)
        if source is not None:
            take_weights(module, source.module_)
        freeze_weights(module, [freeze] if isinstance(freeze, str) else freeze)
        windows = scaled(windows, self.schema_["scale"])
        sources = training_batches(
            windows,
            self.split_,
            self.batch_size,
            classes=len(self.classes_),
            balanced=self.balanced,
            weighted=self.class_weight is not None,
            seed=seed,
        )
        self.history_ = self._train(module, *sources, self._config(seed))
        self.module_ = module.requires_grad_(True)
        self.metrics_ = {
            name: eeg_metrics(labels_of(windows)[index].numpy(), self._scores(windows, index))
            for name, index in judged_parts(self.split_).items()
        }
        return self

    def _prepare(self, montage: Montage, band: Sequence[float | None] | None) -> Preparation:
        names = ("window", "stride", "outliers", "reference", "scaling", "centre", "mixed")
        return Preparation(montage.channels, band=band, **{name: getattr(self, name) for name in names})

    def _first_band(self, source: EEGClassifier | None) -> Sequence[float | None] | None:
        """The band given, or the source's; None before one is chosen."""
        if not isinstance(self.band, str):
            return self.band
        if self.band != "auto":
            raise ConfigError(f"band={self.band!r}: must be (low, high) in hertz, 'auto' or None")
        return None if source is None else source.schema_["band"]

    def _checked_split(self, windows: Windows, split: IndexSplit | None, seed: int) -> IndexSplit:
        y = labels_of(windows)
        if split is None:
            gap = round(self.gap * windows.rate)
            split = split_windows(windows, self.split_by, self.validation, 0.0, gap=gap, seed=seed)
        check_split(split, len(windows), "windows")
        refuse_shared_samples(windows, split)
        check_two_classes(y[split.train], self.classes_, split.name, "windows")
        return split

    def _describe(
        self,
        windows: Windows,
        source: EEGClassifier | None,
        band: Sequence[float | None] | None,
        losses: dict[str, float],
    ) -> None:
        """Set ``schema_``; the scale is that of the training windows, or the source's."""
        scale = scale_of(windows, self.split_.train) if self.scaling == "standard" else None
        self.schema_ = {
            "channels": list(windows.channels),
            "rate": windows.rate,
            "samples": windows.length,
            "classes": self.classes_.tolist(),
            "montage": find_montage(self.montage).to_dict(),
            "scale": scale if source is None else source.schema_["scale"],
            "band": None if band is None else list(band),
        }
        if losses:
            self.schema_["band_losses"] = losses

    def _build(self, **facts: Any) -> nn.Module:
        self._check_model()
        montage, options = find_montage(self.montage), self.model_options or {}
        module: nn.Module = create_model(self.model, montage, facts["classes"], **options)
        return module

    def _check_model(self) -> None:
        if card(self.model).task != "eeg":
            raise ConfigError(f"model={self.model!r}: is for {card(self.model).task}, not for EEG")
        check_number("gap", self.gap, 0.0, math.inf)
        if self.class_weight not in (None, "balanced"):
            raise ConfigError(f"class_weight={self.class_weight!r}: must be 'balanced' or None")

    def _scores(self, windows: Windows, index: Tensor) -> NDArray[np.float32]:
        return self._predict(WindowBatches(windows, index, self.batch_size))

    def windows(self, X: Any, y: Any = None, **how: Any) -> Windows:
        """What a row of `predict_proba` stands for: recording, offset, subject, scaled signal, class.

        Raises:
            DataError: Rate, channels or samples of a window are not those of ``fit``, or see there.
        """
        check_is_fitted(self, "module_")
        return self._windows(X, y, self.classes_, **how)

    def _windows(self, X: Any, y: Any, classes: NDArray[Any] | None, **how: Any) -> Windows:
        """`windows`; without classes their own labels are not looked at, and left out."""
        check_is_fitted(self, "module_")
        prepare = self._prepare(Montage.from_dict(self.schema_["montage"]), self.schema_["band"])
        windows, _ = prepare(X, y, classes=classes, **how)
        rate, length = self.schema_["rate"], self.schema_["samples"]
        if 1.0 not in (rate, windows.rate) and rate != windows.rate:
            raise DataError(
                f"{windows.name}: has {windows.rate:g} samples per second, fitted were {rate:g}; resample"
            )
        if windows.length != length:
            raise DataError(
                f"{windows.name}: its windows are of {windows.length} samples, fitted were {length}; cut "
                "them so, or say rate= as for fit"
            )
        windows = scaled(windows, self.schema_["scale"])
        return windows if classes is not None else replace(windows, y=None)

    def predict_proba(self, X: Any, *, by: str = "window", **how: Any) -> NDArray[np.float32]:
        """Probabilities, a column per class of ``classes_``.

        Args:
            X: As for ``fit``; no labels are needed.
            by: ``"window"`` for a row per window, or ``"recording"`` for a row per recording: the mean of its
                windows.
            how: As for ``fit``.

        Raises:
            ConfigError: ``by`` is unknown.
            DataError: See `windows`; or a recording is shorter than a window and ``by`` is ``"recording"``.
        """
        if by not in ("window", "recording"):
            raise ConfigError(f"by={by!r}: must be window or recording")
        windows = self._windows(X, None, None, **{k: v for k, v in how.items() if k != "label"})
        found = self._scores(windows, torch.arange(len(windows)))
        return found if by == "window" else mean_by_recording(windows, found)

    def predict(self, X: Any, *, by: str = "window", **how: Any) -> NDArray[Any]:
        """The most probable class of each window, or recording; see `predict_proba`."""
        found = self.predict_proba(X, by=by, **how)  # says so where nothing was fitted
        return self.classes_[found.argmax(1)]

    def evaluate(self, X: Any, y: Any = None, *, index: Any = None, **how: Any) -> dict[str, float | None]:
        """Metrics of labelled windows; see `eeg_metrics`.

        Args:
            X: As for ``fit``.
            y: As for ``fit``.
            index: Which windows; None for all.
            how: As for ``fit``.

        Raises:
            DataError: There are no labels, or one was not fitted.
        """
        windows = self.windows(X, y, **how)
        judged = torch.from_numpy(chosen(index, len(windows), "windows"))
        if not len(judged):
            raise DataError("index: names no window; there is nothing to judge")
        return eeg_metrics(labels_of(windows)[judged].numpy(), self._scores(windows, judged))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **how: Any) -> float:
        """Accuracy over windows; see `evaluate`."""
        windows = self.windows(X, y, **how)
        guess = self._scores(windows, torch.arange(len(windows))).argmax(1)
        return accuracy(labels_of(windows).numpy(), guess, sample_weight)

    def gates(self, X: Any, **how: Any) -> dict[str, dict[str, float]]:
        """What the network weights how much, the mean over the windows of X.

        Returns:
            ``electrodes`` and ``electrodes_after`` (what they told each other) with a weight per electrode,
            1 in sum over a region; ``regions`` and ``regions_after`` with a weight per region, 1 in sum.
        """
        windows = self._windows(X, None, None, **{k: v for k, v in how.items() if k != "label"})
        batches = WindowBatches(windows, torch.arange(len(windows)), self.batch_size).epoch(0)
        with torch.inference_mode():
            parts = [self.module_.levels(one.x.transpose(1, 2))[1] for one in batches]  # type: ignore[operator]
        regions = [region["name"] for region in self.schema_["montage"]["regions"]]
        names = {"electrodes": self.schema_["channels"], "regions": regions}
        means = {field: torch.cat([getattr(one, field) for one in parts]).mean(0) for field in Gates._fields}
        return {
            field: dict(zip(names[field.removesuffix("_after")], mean.tolist(), strict=True))
            for field, mean in means.items()
        }

    def plot_gates(self, X: Any, path: str | Path | None = None, **how: Any) -> Figure:
        """`gates` drawn on a head, also written to ``path`` if given."""
        from .pictures import gates_figure

        gates = self.gates(X, **how)  # first: says so where nothing was fitted
        figure = gates_figure(Montage.from_dict(self.schema_["montage"]), gates)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
        return figure

    def _arguments(self) -> dict[str, Any]:
        found = self.get_params(deep=False)
        montage = found["montage"]
        return {**found, "montage": montage.to_dict() if isinstance(montage, Montage) else montage}

    def _write_more(self, folder: Path) -> None:
        runs.write_yaml(folder / SCHEMA_FILE, self.schema_)

    def _read_more(self, folder: Path) -> None:
        schema = {"band": self.band, **runs.read_yaml(folder / SCHEMA_FILE)}
        Montage.from_dict(schema["montage"])
        rescaled, rate = schema["scale"], float(schema["rate"])  # KeyError and TypeError: it is incomplete
        parts = [] if rescaled is None else [rescaled["mean"], rescaled["spread"]]
        if any(len(part) != len(schema["channels"]) for part in parts) or not rate > 0:
            raise ConfigError(f"{SCHEMA_FILE}: scale, rate and channels do not fit each other")
        self.schema_ = schema
