"""Recordings in MATLAB files (version 7 and older), read by SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from graphrec.errors import ConfigError, DataError, SchemaError

from .container import EEGSet, Recording
from .labels import encode

Layout = Literal["samples_channels", "channels_samples"]


def load_mat(path: str | Path) -> dict[str, Any]:
    """Variables of a .mat file; structures become objects with attributes, cells arrays of objects.

    Raises:
        DataError: The file is missing, broken, cut short, or of version 7.3.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise DataError(f"{path}: is a version 7.3 file; save it in MATLAB with save(..., '-v7')") from error
    except Exception as error:  # a broken file can fail in any way
        text = str(error).splitlines()[0] if str(error) else ""
        raise DataError(f"{path}: cannot be read ({type(error).__name__}: {text}); cut short?") from error
    return {k: v for k, v in found.items() if not k.startswith("__")}


def variable(found: dict[str, Any], name: str, path: str | Path) -> Any:
    """One variable.

    Raises:
        SchemaError: It is missing.
    """
    if name not in found:
        raise SchemaError(f"{path}: variable {name!r} is missing; it has {', '.join(found) or 'none'}")
    return found[name]


def read_mat(
    path: str | Path,
    *,
    signal: str,
    rate: float,
    channels: Sequence[str],
    layout: Layout = "samples_channels",
    label: str | None = None,
    subject: str = "",
) -> EEGSet:
    """Recordings from a matrix, or trials from an array with three dimensions.

    Args:
        path: The file.
        signal: Variable with (samples, channels), or (trials, samples, channels).
        rate: Samples per second.
        channels: Names of the channels.
        layout: ``"channels_samples"`` when the last two dimensions are the other way round.
        label: Variable with a class for each sample, or for each trial.
        subject: Who was recorded.

    Raises:
        ConfigError: Unknown layout.
        SchemaError: A variable is missing.
        DataError: The file is broken, or the sizes do not match.
    """
    if layout not in ("samples_channels", "channels_samples"):
        raise ConfigError(f"layout={layout!r}: must be samples_channels or channels_samples")
    found = load_mat(path)
    values = np.asarray(variable(found, signal, path))
    if values.dtype.kind not in "iuf" or values.ndim not in (2, 3):
        raise DataError(
            f"{path}: {signal} is {values.dtype} of shape {values.shape}; must be a matrix, or trials of them"
        )
    trials = values if values.ndim == 3 else values[None]
    trials = trials.swapaxes(1, 2) if layout == "channels_samples" else trials
    if trials.shape[2] != len(channels):
        other = "samples_channels" if layout == "channels_samples" else "channels_samples"
        raise DataError(
            f"{path}: {signal} has {trials.shape[2]} channels, {len(channels)} are named; layout={other!r}?"
        )
    codes, classes = (
        (None, ()) if label is None else encode(np.ravel(variable(found, label, path)), f"{path}: {label}")
    )
    expected = trials.shape[0] if values.ndim == 3 else trials.shape[1]
    if codes is not None and len(codes) != expected:
        raise DataError(
            f"{path}: {label} has {len(codes)} values for {expected} "
            f"{'trials' if values.ndim == 3 else 'samples'}"
        )
    listed = []
    for i, one in enumerate(trials):
        label_of = codes if codes is None or values.ndim == 2 else codes[i]
        name = str(path) if values.ndim == 2 else f"{path}: trial {i + 1}"
        data = torch.from_numpy(np.ascontiguousarray(one, dtype=np.float32))
        listed.append(Recording(data, float(rate), tuple(channels), label_of, subject, name))
    return EEGSet(tuple(listed), classes, str(path))
