"""Spikes that no brain makes: found by a robust distance, and treated as the user says, never in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError

from .container import EEGSet, Recording

Treatment = Literal["interpolate", "clip", "mark", "refuse"]
_CHOICES = ("interpolate", "clip", "mark", "refuse")
THRESHOLD = 20.0
"""Robust deviations. On UCI's EEG Eye State every threshold from 13 to 200 finds the same four rows."""


def find_outliers(recording: Recording, threshold: float = THRESHOLD) -> Tensor:
    """Values further from their channel's median than ``threshold`` times 1.4826 MAD.

    Returns:
        bool (samples, channels).
    """
    centre, spread = _centre_and_spread(recording)
    return (recording.signal - centre).abs() > threshold * spread


def _centre_and_spread(recording: Recording) -> tuple[Tensor, Tensor]:
    centre = recording.signal.median(dim=0).values
    spread = 1.4826 * (recording.signal - centre).abs().median(dim=0).values
    # A channel that is constant half of the time has no MAD; its standard deviation is the next best.
    return centre, torch.where(spread > 0, spread, recording.signal.std(dim=0, correction=0))


def treat_outliers(
    recordings: EEGSet, how: Treatment, threshold: float = THRESHOLD
) -> tuple[EEGSet, list[str]]:
    """Recordings without their outliers.

    Medians are those of whole recordings, so a test part has its small share in what counts as an outlier.

    Args:
        recordings: The recordings.
        how: ``"interpolate"`` a line between the good neighbours of that channel; ``"clip"`` to the
            threshold; ``"mark"`` the sample as bad, so that no window holds it; ``"refuse"`` to go on.
            Samples are never taken out: what was apart in time would touch.
        threshold: See `find_outliers`.

    Returns:
        The recordings, and a line for each one with outliers: how many and where.

    Raises:
        ConfigError: Unknown treatment.
        DataError: There are outliers and ``how`` is ``"refuse"``.
    """
    if how not in _CHOICES:
        raise ConfigError(f"how={how!r}: must be one of {', '.join(_CHOICES)}")
    notes: list[str] = []

    def treat(one: Recording) -> Recording:
        found = find_outliers(one, threshold)
        rows = found.any(dim=1).nonzero().flatten()
        if not len(rows):
            return one
        shown = ", ".join(str(r + 1) for r in rows[:8].tolist()) + (", ..." if len(rows) > 8 else "")
        line = f"{one.name}: {len(rows)} samples beyond {threshold:g} robust deviations (rows {shown})"
        if how == "refuse":
            raise DataError(f"{line}; choose interpolate, clip or mark")
        notes.append(f"{line}: {how}")
        return _treated(one, found, how, threshold)

    return recordings.map(treat), notes


def _treated(one: Recording, found: Tensor, how: str, threshold: float) -> Recording:
    if how == "mark":
        bad = found.any(dim=1)
        return replace(one, bad=bad if one.bad is None else bad | one.bad)
    if how == "clip":
        centre, spread = _centre_and_spread(one)
        return replace(one, signal=one.signal.clamp(centre - threshold * spread, centre + threshold * spread))
    signal, at = one.signal.numpy().copy(), np.arange(len(one))
    for column in found.any(dim=0).nonzero().flatten().tolist():
        wrong = found[:, column].numpy()
        signal[wrong, column] = np.interp(at[wrong], at[~wrong], signal[~wrong, column])
    return replace(one, signal=torch.from_numpy(signal))
