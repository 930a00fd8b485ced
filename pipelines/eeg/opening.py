"""Recordings from whatever holds them: `open_eeg` chooses the reader."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphrec.errors import ConfigError, DataError

from .arff import read_arff
from .container import EEGSet, Recording
from .dreamer import read_dreamer
from .mat import read_mat
from .raw_files import read_raw_files
from .tables import read_eeg_table

RAW = (".edf", ".bdf", ".gdf", ".fif", ".vhdr", ".set", ".cnt", ".mff")


def open_eeg(source: Any, **options: Any) -> EEGSet:
    """Recordings from a file, a table, a recording, or themselves.

    Args:
        source: A path to ARFF (`read_arff`), to MATLAB's format (`read_mat` when ``signal`` is given, else
            `read_dreamer`), to EDF and others that MNE reads, or several of these (`read_raw_files`), or to
            any table, or a data frame (`read_eeg_table`); a `Recording`; an `EEGSet`.
        options: Arguments of the reader.

    Raises:
        ConfigError: The reader does not take an option, or lacks one.
        DataError: There is no such file, or see the reader.
    """
    if isinstance(source, EEGSet | Recording):
        if options:
            raise ConfigError(f"{next(iter(options))}: is for files and tables, not for recordings")
        return source if isinstance(source, EEGSet) else _alone(source)
    reader = _reader(source, options)
    _check(reader, options)
    found: EEGSet = reader(source, **options)
    return found


def _alone(one: Recording) -> EEGSet:
    count = 0 if one.label is None else int(one.label.max()) + 1
    return EEGSet((one,), tuple(map(str, range(count))), one.name)


def _reader(source: Any, options: dict[str, Any]) -> Callable[..., EEGSet]:
    paths = source if isinstance(source, list | tuple) else [source]
    if not all(isinstance(one, str | Path) for one in paths) or not paths:
        if paths is source:
            raise _no_recordings(source)
        if source is None or isinstance(source, int | float | bytes):
            raise _no_recordings(source)
        return read_eeg_table
    kind = Path(paths[0]).suffix.lower()
    if kind not in (".arff", ".mat", *RAW):
        return read_eeg_table
    for one in paths:
        if not Path(one).exists():
            raise DataError(f"{one}: there is no such file")
    if len(paths) > 1 and kind not in RAW:
        raise ConfigError(f"{paths[0]}: give {kind} files one at a time")
    if kind == ".mat":
        return read_mat if "signal" in options else read_dreamer
    return read_arff if kind == ".arff" else read_raw_files


def _no_recordings(source: Any) -> DataError:
    return DataError(
        f"recordings: found a {type(source).__name__}; give a path or several, a data frame, an EEGSet, or "
        "windows as an array (windows, channels, samples)"
    )


def _check(reader: Callable[..., EEGSet], options: dict[str, Any]) -> None:
    """Raise ConfigError where the call would be a TypeError."""
    known = list(inspect.signature(reader).parameters.values())[1:]
    for key in options:
        if key not in {p.name for p in known}:
            raise ConfigError(
                f"{key}: {reader.__name__} has no such option; it takes {', '.join(p.name for p in known)}"
            )
    for one in known:
        if one.default is one.empty and one.name not in options:
            raise ConfigError(f"{one.name}: {reader.__name__} needs it, as in {one.name}=...")
