"""Which frequencies tell the classes: powers of each channel under folds inside what trains."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.eeg import Windows

Band = tuple[float, float | None]
EDGES = (1.0, 4.0, 8.0, 13.0, 30.0)
"""Hertz at which delta, theta, alpha, beta and gamma begin."""
_FOLDS, _BLOCKS = 3, 10


def candidate_bands(rate: float) -> dict[str, Band]:
    """Every run of neighbouring ones of delta, theta, alpha, beta and gamma, by a name such as "8 to 30 Hz".

    Args:
        rate: Samples per second; what half of it does not reach is left out.
    """
    edges = [edge for edge in EDGES if edge < rate / 2]
    runs: list[Band] = [*combinations(edges, 2), *((edge, None) for edge in edges)]
    return {f"{a:g} to {b:g} Hz" if b else f"from {a:g} Hz": (a, b) for a, b in sorted(runs, key=_order)}


def _order(band: Band) -> tuple[float, float]:
    return band[0], band[1] or np.inf


def log_powers(windows: Windows) -> NDArray[np.float64]:
    """Logarithm of each channel's variance within each window, (W, C)."""
    parts = torch.arange(len(windows)).split(4096)
    power = torch.cat([windows.x(one).double().var(1) for one in parts])
    found: NDArray[np.float64] = power.clamp(min=torch.finfo(torch.float64).tiny).log().numpy()
    return found


def power_regression() -> Pipeline:
    """Logistic regression on `log_powers`, both classes of equal weight: what needs no network."""
    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))


def band_losses(
    bands: Iterable[tuple[str, Windows]], train: Tensor, *, by: str = "time", gap: int = 0
) -> dict[str, float]:
    """How well the powers in each band tell the classes, inside what trains: the less the better.

    Log loss of `power_regression` over three folds of the training windows; nothing else is looked at. The
    folds hold out tenths of every recording, or whole recordings or subjects, with the classes as evenly
    spread as these allow.

    Args:
        bands: Names, and the same windows of each band; one after another is enough.
        train: Indices of the windows that train, int64 (n,).
        by: ``"time"``, ``"recording"`` or ``"subject"``: what the folds hold out, as in `split_windows`.
        gap: Samples left out beside what a fold holds out along time.

    Returns:
        The loss by name.

    Raises:
        ConfigError: ``by`` is unknown.
        DataError: There are no labels, or too few recordings, subjects or windows of a class for three folds.
    """
    losses: dict[str, float] = {}
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for name, windows in bands:
        if windows.y is None:
            raise DataError(f"{windows.name}: has no labels; read it with label=, or pass y")
        folds = folds or _folds(windows, train, by, gap)
        x, y = log_powers(windows), windows.y.numpy()
        scores = [power_regression().fit(x[fit], y[fit]).predict_proba(x[held]) for fit, held in folds]
        losses[name] = float(log_loss(np.concatenate([y[held] for _, held in folds]), np.concatenate(scores)))
    return losses


def _folds(
    windows: Windows, train: Tensor, by: str, gap: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of each fold the windows that fit and those held out."""
    assert windows.y is not None
    y, index = windows.y[train].numpy(), train.numpy()
    groups = _groups(windows, by)[train].numpy()
    count = len(np.unique(groups))
    if count < _FOLDS or np.bincount(y).max(initial=0) < _FOLDS:
        what = "tenths of recordings" if by == "time" else f"{by}s"
        raise DataError(
            f"{windows.name}: {len(y)} training windows from {count} {what} are too few to choose a band by "
            f"{_FOLDS} folds; give band="
        )
    found = []
    for fit, held in StratifiedGroupKFold(_FOLDS).split(index, y, groups):
        kept = index[fit] if by != "time" else _apart(windows, index[fit], index[held], gap)
        if set(y) - set(windows.y.numpy()[kept]):
            raise DataError(
                f"{windows.name}: a third of the training windows holds all of a class, so no band can be "
                "chosen on the rest; give band="
            )
        found.append((kept, index[held]))
    return found


def _groups(windows: Windows, by: str) -> Tensor:
    """Number of the group of each window: a tenth of its recording, its recording, its subject."""
    if by == "time":
        total = windows.recording_length[windows.recording]
        return windows.recording * _BLOCKS + windows.offset * _BLOCKS // total
    if by not in ("recording", "subject"):
        raise ConfigError(f"by={by!r}: must be time, recording or subject")
    return windows.recording if by == "recording" else windows.subject


def _apart(windows: Windows, fit: NDArray[np.int64], held: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
    """Those of ``fit`` that share no sample with any of ``held`` and lie ``gap`` samples away from it."""
    distance = windows.length + gap
    room = int(windows.recording_length.max()) + distance  # so that no recording is near the next one
    place = (windows.recording * room + windows.offset).numpy()
    taken = np.sort(place[held])
    after = np.searchsorted(taken, place[fit])
    before, behind = (taken[near.clip(0, len(taken) - 1)] for near in (after - 1, after))
    far = np.minimum(np.abs(place[fit] - before), np.abs(place[fit] - behind)) >= distance
    return fit[far]
