"""Recordings in ARFF, such as UCI's EEG Eye State: one row a sample, one attribute a channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from graphrec.errors import DataError, SchemaError

from .container import EEGSet, Recording
from .labels import encode


def read_arff(
    path: str | Path,
    *,
    rate: float,
    label: str | None = None,
    channels: Sequence[str] | None = None,
    subject: str = "",
) -> EEGSet:
    """One recording from an ARFF file.

    UCI's EEG Eye State: ``read_arff(path, rate=128, label="eyeDetection")``; four of its rows hold absurd
    spikes, see `treat_outliers`.

    Args:
        path: The file.
        rate: Samples per second; ARFF does not record it.
        label: Attribute with the class of each sample.
        channels: Attributes that are channels; None takes all numeric ones except the label.
        subject: Who was recorded.

    Raises:
        SchemaError: An attribute is missing or not numeric.
        DataError: The file is broken or cut short, or a value is not finite.
    """
    from scipy.io import arff

    try:
        rows, header = arff.loadarff(str(path))
    except (OSError, ValueError, StopIteration, IndexError, NotImplementedError, arff.ArffError) as error:
        raise DataError(
            f"{path}: cannot be read as ARFF ({type(error).__name__}: {error}); cut short?"
        ) from error
    kinds = dict(zip(header.names(), header.types(), strict=True))
    chosen = (
        list(channels)
        if channels is not None
        else [n for n, k in kinds.items() if k == "numeric" and n != label]
    )
    for name in [*chosen, *([label] if label else [])]:
        if name not in kinds:
            raise SchemaError(f"{path}: attribute {name!r} is missing; it has {', '.join(kinds)}")
    wrong = [n for n in chosen if kinds[n] != "numeric"]
    if wrong:
        raise SchemaError(f"{path}: attribute {wrong[0]!r} is {kinds[wrong[0]]}; a channel must be numeric")
    if not len(rows):
        raise DataError(f"{path}: holds no rows")
    signal = torch.from_numpy(np.stack([rows[n] for n in chosen], axis=1).astype(np.float32))
    codes, classes = encode(rows[label], str(path)) if label else (None, ())
    one = Recording(signal, float(rate), tuple(chosen), codes, subject, str(path))
    return EEGSet((one,), classes, str(path))
