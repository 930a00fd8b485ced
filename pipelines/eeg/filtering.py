"""Reference and frequency band of recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from graphrec.errors import ConfigError

from .container import EEGSet, Recording
from .windows import Windows


def average_reference(recordings: EEGSet) -> EEGSet:
    """Every sample minus the mean over its channels: what all electrodes share, such as the drift of their
    common reference, goes.

    The mean is over all channels of the set; leave out those that are no electrodes (`Recording.pick`).
    """

    def change(one: Recording) -> Recording:
        rest = None if one.baseline is None else one.baseline - one.baseline.mean(1, keepdim=True)
        return replace(one, signal=one.signal - one.signal.mean(1, keepdim=True), baseline=rest)

    return recordings.map(change)


def band_pass(
    recordings: EEGSet, low: float | None = None, high: float | None = None, *, order: int = 4
) -> EEGSet:
    """A Butterworth filter along time that looks back only.

    Looking ahead as well (``filtfilt``) would carry a test part into the training part before it. The filter
    starts settled on the first sample, so a constant offset gives no jump.

    Args:
        recordings: The recordings; the ``baseline`` is filtered on its own.
        low: Keep what is faster than so many hertz; None keeps all slow parts.
        high: Keep what is slower; None keeps all fast parts.
        order: Of the filter.

    Raises:
        ConfigError: Neither bound is given, or they are not between 0 and half the rate, or not in order.
    """
    run = _filter(recordings.rate, low, high, order)

    def change(one: Recording) -> Recording:
        rest = None if one.baseline is None or not len(one.baseline) else run(one.baseline)
        return replace(one, signal=run(one.signal), baseline=rest)

    return recordings.map(change)


def band_pass_windows(
    windows: Windows, low: float | None = None, high: float | None = None, *, order: int = 4
) -> Windows:
    """`band_pass` of the recordings that windows were cut from, as if before cutting.

    Raises:
        ConfigError: The windows hold no whole recordings, or see there.
    """
    if not windows.whole:
        raise ConfigError(
            f"band: needs whole recordings, and {windows.name} is windows; filter before cutting"
        )
    run = _filter(windows.rate, low, high, order)
    parts = windows.signal.split(windows.recording_length.tolist())
    return replace(windows, signal=torch.cat([run(one) if len(one) else one for one in parts]))


def _filter(
    rate: float, low: float | None, high: float | None, order: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What filters a signal (S, C) along time."""
    from scipy import signal

    half = rate / 2
    if (
        (low is None and high is None)
        or any(b is not None and not 0 < b < half for b in (low, high))
        or (low is not None and high is not None and low >= high)
    ):
        raise ConfigError(
            f"band=({low}, {high}): needs 0 < low < high < {half:g} Hz, half the rate; one may be None"
        )
    kind = "lowpass" if low is None else "highpass" if high is None else "bandpass"
    edges = high if low is None else low if high is None else (low, high)
    sections = signal.butter(order, edges, kind, fs=rate, output="sos")
    settled = signal.sosfilt_zi(sections)[:, :, None]

    def run(values: torch.Tensor) -> torch.Tensor:
        wide = values.double().numpy()
        found, _ = signal.sosfilt(sections, wide, axis=0, zi=settled * wide[:1])
        return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))

    return run
