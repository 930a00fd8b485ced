"""HiSTN's two experiments on DREAMER, named after what they measure.

`subject_dependent` trains and tests on every trial: how well a trial is recognised from another part of
itself. `subject_adapted` is what the paper calls subject-independent: the network is fine-tuned on labelled
seconds of every trial of the tested subject. Neither figure says how a new trial or a new person would fare;
of a new person `subject_adapted` tells as well, by the figures before fine-tuning.

Defaults are those of the official scripts; they take hours on a CPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import DataError
from graphrec.pipelines.eeg import (
    EEGSet,
    WindowLoader,
    Windows,
    adaptation_split,
    last_seconds,
    make_windows,
    max_abs,
    of_subject,
    time_folds,
)
from graphrec.pipelines.index_splits import IndexSplit

from .classifier import EEGClassifier

Figures = dict[str, float | None]


def modal_labels(recordings: EEGSet) -> EEGSet:
    """Every recording with the commonest class among those of its stimulus; of a tie, the lowest.

    Raises:
        DataError: A recording has no stimulus, or not one class for all of its samples.
    """
    found = defaultdict(list)
    for one in recordings:
        if not one.stimulus or one.label is None or one.label.dim():
            raise DataError(f"{one.name}: needs a stimulus, and one class for all of its samples")
        found[one.stimulus].append(int(one.label))
    modes = {key: int(np.bincount(labels).argmax()) for key, labels in found.items()}
    return recordings.map(lambda one: replace(one, label=torch.tensor(modes[one.stimulus])))


def subject_dependent(
    recordings: EEGSet,
    subject: str,
    *,
    folds: int = 10,
    seconds: float | None = 60.0,
    crops: int | None = None,
    stride: float | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Figures]:
    """A network for each fold along time inside every trial of one subject.

    Of each trial's last minute one segment of 6 s tests, the next one validates, eight train. All trials are
    in all parts. Trials are scaled by their largest magnitude, of the whole minute.

    Args:
        recordings: Of several subjects, with one class each.
        subject: Whose.
        folds: Segments of a trial.
        seconds: How much of each trial's end is used; None for all.
        crops: Test on so many windows drawn with equal classes, as the official script does with 1,000, in
            place of all windows one after another.
        stride: Seconds from one training window to the next; None for every sample, as the official crops at
            random places have it.
        seed: Of weights, orders and draws.
        options: Arguments of `EEGClassifier`.

    Returns:
        Test metrics of each fold.

    Raises:
        ConfigError: See `of_subject` and `EEGClassifier`.
        DataError: A trial is too short.
    """
    own = of_subject(recordings, subject)
    own = max_abs(own if seconds is None else last_seconds(own, seconds))
    settings = {**_STAGE_DEPENDENT, **options, "random_state": seed}
    windows = _dense(own, settings, stride)
    found = []
    for fold in time_folds(windows, folds):
        model = EEGClassifier(**settings).fit(windows, split=fold)
        index = _tested(windows, fold, crops, seed)
        found.append(model.evaluate(windows, index=index))
    return found


def subject_adapted(
    recordings: EEGSet,
    subject: str,
    *,
    seconds: float | None = 60.0,
    adapt_seconds: float = 10.0,
    adapt_stride: float = 0.25,
    freeze: tuple[str, ...] = ("temporal.kernel",),
    alone: bool = False,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    adapt_options: Mapping[str, Any] | None = None,
) -> dict[str, Figures]:
    """Train on all other subjects, then fine-tune on the beginning of every trial of this one.

    In the first stage the class of a trial is the commonest of its stimulus among the other subjects. Both
    stages keep the weights of their last epoch.

    Args:
        recordings: Of several subjects, with a stimulus and one class each.
        subject: Who is tested.
        seconds: How much of each trial's end is used; None for all.
        adapt_seconds: Of these, how many at the beginning fine-tune, with their labels; the rest tests.
        adapt_stride: Seconds from one window of these to the next.
        freeze: Weights that fine-tuning leaves alone; the official scripts freeze the temporal kernels.
        alone: Also train a network on the subject's seconds without a first stage.
        seed: Of weights, orders and draws.
        options: Arguments of `EEGClassifier` in the first stage.
        adapt_options: In the second.

    Returns:
        Metrics on the rest of the subject's trials: ``"unadapted"``, after the first stage, which has seen
        nothing of the subject; ``"adapted"``, after both; ``"alone"`` if asked for.

    Raises:
        ConfigError: See `of_subject` and `EEGClassifier`.
        DataError: A trial is too short, or lacks its stimulus.
    """
    cut = max_abs(recordings if seconds is None else last_seconds(recordings, seconds))
    own, others = of_subject(cut, subject), modal_labels(of_subject(cut, subject, others=True))
    first_settings = {**_STAGE_ONE, **(options or {}), "random_state": seed}
    second_settings = {**_STAGE_TWO, **(adapt_options or {}), "random_state": seed}
    first = EEGClassifier(**first_settings).fit(_dense(others, first_settings, first_settings["window"]))
    tuning = _dense(own, second_settings, adapt_stride)
    split = adaptation_split(tuning, subject, samples=round(adapt_seconds * own.rate))
    split = IndexSplit.of(split.train, [], [], len(tuning), split.name)
    tested = _dense(own, second_settings, second_settings["window"])
    rest = adaptation_split(tested, subject, samples=round(adapt_seconds * own.rate)).test
    second = EEGClassifier(**second_settings).fit(tuning, split=split, source=first, freeze=freeze)
    found = {"unadapted": first.evaluate(tested, index=rest), "adapted": second.evaluate(tested, index=rest)}
    if alone:
        found["alone"] = (
            EEGClassifier(**second_settings).fit(tuning, split=split).evaluate(tested, index=rest)
        )
    return found


_BOTH: dict[str, Any] = {"scaling": None, "window": 1.0, "patience": None}
_STAGE_DEPENDENT: dict[str, Any] = {
    **_BOTH,
    "epochs": 50,
    "batch_size": 256,
    "model_options": {"dropout": 0.5},
    "train_options": {"scheduler": "step", "step_epochs": (30,), "step_factor": 0.5, "clip_norm": None},
}
_STAGE_ONE: dict[str, Any] = {
    **_BOTH,
    "validation": 0.0,
    "epochs": 100,
    "batch_size": 120,
    "learning_rate": 1e-2,
    "model_options": {"dropout": 0.2},
    "train_options": {"scheduler": "step", "step_epochs": (50,), "step_factor": 0.2, "clip_norm": None},
}
_STAGE_TWO: dict[str, Any] = {
    **_BOTH,
    "epochs": 400,
    "batch_size": 100,
    "balanced": False,
    "class_weight": "balanced",
    "model_options": {"dropout": 0.2},
    "train_options": {"clip_norm": None},
}


def _dense(recordings: EEGSet, settings: Mapping[str, Any], stride: float | None) -> Windows:
    """Windows ``stride`` seconds apart, or one sample."""
    step = 1 if stride is None else max(round(stride * recordings.rate), 1)
    return make_windows(recordings, round(settings["window"] * recordings.rate), step)


def _tested(windows: Windows, fold: IndexSplit, crops: int | None, seed: int) -> Tensor:
    """Windows one after another, or as many draws with equal classes."""
    if crops is not None:
        loader = WindowLoader(windows, fold.test, crops, balanced=True, seed=seed)
        drawn: Tensor = torch.cat([torch.cat(loader.cuts(k)) for k in range(-(-crops // len(fold.test)))])
        return drawn[:crops]
    first: dict[int, int] = {}
    for i in fold.test.tolist():
        first.setdefault(int(windows.recording[i]), int(windows.offset[i]))
    begin = torch.tensor([first[r] for r in windows.recording[fold.test].tolist()])
    return fold.test[(windows.offset[fold.test] - begin) % windows.length == 0]
