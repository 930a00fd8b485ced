"""Recordings in the formats of EEG machines (EDF, BDF, GDF, BrainVision, EEGLAB, FIF ...), read by MNE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphrec.errors import DataError, MissingExtraError

from .container import EEGSet, Recording


def read_raw_files(
    paths: str | Path | Sequence[str | Path],
    *,
    subjects: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    events: Mapping[str, int] | None = None,
    classes: Sequence[str | int] = (),
    channels: Sequence[str] | None = None,
    rate: float | None = None,
) -> EEGSet:
    """One recording from each file.

    Args:
        paths: A file, or several. MNE tells the format by the extension.
        subjects: Who was recorded in each file.
        labels: Class of each file.
        events: Description of an annotation to class: samples under it get the class, all others are marked
            bad.
        classes: Text or numbers; numbers from 0 by default.
        channels: Channels to take, in this order; None takes all EEG channels.
        rate: Resample to so many samples per second (MNE's filter against aliasing); None keeps the file's.

    Returns:
        Signals in volts.

    Raises:
        MissingExtraError: MNE is not installed.
        DataError: A file cannot be read, a channel is missing, or no annotation has a known description.
    """
    try:
        import mne
    except ImportError as error:
        raise MissingExtraError("read_raw_files needs MNE: pip install 'graphrec[eeg]'") from error
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    for what, values in (("subjects", subjects), ("labels", labels)):
        if values is not None and len(values) != len(listed):
            raise DataError(f"{what}: {len(values)} for {len(listed)} files")
    found = []
    for i, path in enumerate(listed):
        raw = _open(mne, path)
        label, bad = _labels(raw, events, path) if events is not None else (None, None)
        if labels is not None:
            label = torch.tensor(int(labels[i]))
        one = _recording(raw, str(path), subjects[i] if subjects is not None else str(path), label, bad)
        one = one if channels is None else one.pick(channels)
        found.append(one if rate is None or rate == one.rate else _resampled(mne, one, rate))
    largest = max((int(r.label.max()) for r in found if r.label is not None), default=-1)
    names = tuple(classes) or tuple(range(largest + 1))
    return EEGSet(tuple(found), names, str(listed[0]))


def _open(mne: Any, path: str | Path) -> Any:
    try:
        raw = mne.io.read_raw(str(path), preload=True, verbose="error")
        return raw.pick("eeg", verbose="error")
    except Exception as error:  # each format fails in its own way
        text = str(error).splitlines()[0] if str(error) else ""
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {text})") from error


def _recording(
    raw: Any, path: str, subject: str, label: torch.Tensor | None, bad: torch.Tensor | None
) -> Recording:
    signal = torch.from_numpy(np.ascontiguousarray(raw.get_data().T, dtype=np.float32))
    return Recording(signal, float(raw.info["sfreq"]), tuple(raw.ch_names), label, subject, path, bad)


def _labels(raw: Any, events: Mapping[str, int], path: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Class of every sample, the later of two annotations counting, and which samples none labels."""
    rate, samples = float(raw.info["sfreq"]), int(raw.n_times)
    label = torch.full((samples,), -1)
    for onset, seconds, text in zip(
        raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True
    ):
        if str(text) in events:
            first = round((onset - raw.first_time) * rate)
            label[max(first, 0) : max(first + max(round(seconds * rate), 1), 0)] = events[str(text)]
    if bool((label < 0).all()):
        known = ", ".join(sorted(set(map(str, raw.annotations.description)))) or "none"
        raise DataError(f"{path}: no annotation is called {', '.join(events)}; it has {known}")
    bad = label < 0
    return label.clamp(min=0), bad


def _resampled(mne: Any, one: Recording, rate: float) -> Recording:
    from dataclasses import replace

    signal = mne.filter.resample(one.signal.double().numpy(), up=rate / one.rate, axis=0, verbose="error")
    at = (torch.arange(len(signal)) * (one.rate / rate)).long().clamp(max=len(one) - 1)
    label = one.label[at] if one.label is not None and one.label.dim() else one.label
    bad = None if one.bad is None else one.bad[at]
    data = torch.from_numpy(np.ascontiguousarray(signal, dtype=np.float32))
    return replace(one, signal=data, rate=float(rate), label=label, bad=bad, baseline=None)
