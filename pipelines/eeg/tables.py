"""Recordings from tables: a column a channel, or one row for each sample and channel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import polars as pl
import torch

from graphrec.errors import DataError

from ..frames import class_codes, matrix, need, number_columns, read_frame, refuse_rows
from .container import EEGSet, Recording


def read_eeg_table(
    data: Any,
    *,
    rate: float,
    recording: str | None = None,
    subject: str | None = None,
    label: str | None = None,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    channel: str | None = None,
    value: str | None = None,
) -> EEGSet:
    """Recordings from a table, rows in the order of time.

    Args:
        data: Anything `open_table` takes.
        rate: Samples per second.
        recording: Column that tells recordings apart; None when the table is one.
        subject: Column with who was recorded; it must not change within a recording.
        label: Column with the class of each sample.
        time: Column of seconds: must rise by ``1 / rate`` within each recording. In a long table, that of the
            samples.
        channels: Columns (or, in a long table, names) that are channels; None takes all numbers except those
            above.
        channel: In a long table, the column with the channel's name.
        value: In a long table, the column with the signal.

    Raises:
        SchemaError: A column is missing or of a wrong type.
        DataError: A value or label is missing, samples are missing, or a recording has two subjects; names
            the row.
    """
    if isinstance(rate, bool) or not isinstance(rate, Real):
        raise DataError(f"rate={rate!r}: must be samples per second, a number above 0")
    frame, name = read_frame(data, "recordings")
    if not frame.height:
        raise DataError(f"{name}: holds no rows")
    beside = [c for c in (recording, subject, label, time) if c is not None]
    need(frame, name, beside)
    if channel is not None or value is not None:
        frame, name = _wide(frame, name, channel, value, time, beside), f"{name}, one row a sample"
        found = [c for c in frame.columns if c not in beside]
    else:
        found = number_columns(frame, beside)
    chosen = list(channels) if channels is not None else found
    if not chosen:
        raise DataError(f"{name}: has no column of numbers that could be a channel")
    signal = torch.from_numpy(matrix(frame, chosen, name))
    codes, classes = class_codes(frame[label], name) if label else (None, [])
    owner, keys = _owners(frame, recording, name)
    _check_time(frame, time, owner, rate, name)
    people = _people(frame, subject, owner, name)
    labels = None if codes is None else torch.from_numpy(codes)
    bounds = np.append(np.flatnonzero(np.diff(owner, prepend=-1)), len(owner))
    listed = [
        Recording(
            signal[a:b],
            float(rate),
            tuple(chosen),
            None if labels is None else labels[a:b],
            people[i],
            keys[i] if recording else name,
        )
        for i, (a, b) in enumerate(pairwise(bounds))
    ]
    return EEGSet(tuple(listed), tuple(classes), name)


def _wide(
    frame: pl.DataFrame,
    name: str,
    channel: str | None,
    value: str | None,
    time: str | None,
    beside: list[str],
) -> pl.DataFrame:
    if channel is None or value is None or time is None:
        raise DataError(f"{name}: a long table needs all of channel=, value= and time=")
    need(frame, name, [channel, value])
    key = [*beside, channel]
    refuse_rows(
        ~frame.select(key).to_struct().is_first_distinct(), name, "an earlier row has this sample", "keep one"
    )
    return frame.pivot(on=channel, index=beside, values=value, maintain_order=True)


def _owners(frame: pl.DataFrame, recording: str | None, name: str) -> tuple[np.ndarray, list[str]]:
    """Number of each row's recording, and the recordings' names."""
    if recording is None:
        return np.zeros(frame.height, np.int64), [name]
    refuse_rows(frame[recording].is_null(), name, f"column {recording!r} is empty", "name the recording")
    run = frame[recording].rle_id()
    starts = frame.filter(run.is_first_distinct())[recording]
    again = ~starts.is_first_distinct()
    if again.any():
        row = int(run.is_first_distinct().arg_true()[int(again.arg_max() or 0)])
        raise DataError(
            f"{name}: row {row + 1}: recording {starts.filter(again)[0]!r} begins again; sort by recording "
            "and time"
        )
    return run.to_numpy().astype(np.int64), [f"{name}: {k}" for k in starts.to_list()]


def _check_time(frame: pl.DataFrame, time: str | None, owner: np.ndarray, rate: float, name: str) -> None:
    if time is None:
        return
    seconds = matrix_double(frame, time, name)
    step = np.diff(seconds, prepend=seconds[0] - 1 / rate)
    step[np.diff(owner, prepend=owner[0]) > 0] = 1 / rate
    wrong = np.abs(step * rate - 1) > 0.1
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{name}: row {row + 1}: {step[row]:g} s after the row before, not 1/{rate:g}; sort by time, "
            "fill the gap, or make two recordings of it"
        )


def matrix_double(frame: pl.DataFrame, column: str, name: str) -> np.ndarray:
    """A column of numbers, float64 (rows,)."""
    matrix(frame, [column], name)  # its checks
    return frame[column].cast(pl.Float64).to_numpy()


def _people(frame: pl.DataFrame, subject: str | None, owner: np.ndarray, name: str) -> list[str]:
    count = int(owner[-1]) + 1
    if subject is None:
        return [""] * count
    refuse_rows(frame[subject].is_null(), name, f"column {subject!r} is empty", "name the subject")
    run = frame[subject].rle_id().to_numpy()
    changed = (np.diff(run, prepend=run[0]) > 0) & (np.diff(owner, prepend=owner[0]) == 0)
    if changed.any():
        raise DataError(f"{name}: row {int(changed.argmax()) + 1}: the subject changes within a recording")
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    return [str(v) for v in frame[subject][first].to_list()]
