"""EEG: recordings from files and tables, artefacts, windows, and splits that do not leak."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arff import read_arff
    from .artefacts import find_outliers, treat_outliers
    from .container import EEGSet, Recording
    from .dreamer import read_dreamer
    from .mat import read_mat
    from .montage import EPOC, Montage, Region
    from .raw_files import read_raw_files
    from .scaling import max_abs, standardise
    from .splits import (
        adaptation_split,
        leave_one_subject_out,
        split_by_recording,
        split_by_subject,
        split_by_time,
        time_folds,
    )
    from .tables import read_eeg_table
    from .windows import WindowLoader, Windows, make_windows

_MODULES = {
    "arff": ("read_arff",),
    "artefacts": ("find_outliers", "treat_outliers"),
    "container": ("EEGSet", "Recording"),
    "dreamer": ("read_dreamer",),
    "mat": ("read_mat",),
    "montage": ("EPOC", "Montage", "Region"),
    "raw_files": ("read_raw_files",),
    "scaling": ("max_abs", "standardise"),
    "splits": (
        "adaptation_split",
        "leave_one_subject_out",
        "split_by_recording",
        "split_by_subject",
        "split_by_time",
        "time_folds",
    ),
    "tables": ("read_eeg_table",),
    "windows": ("WindowLoader", "Windows", "make_windows"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "EPOC",
    "EEGSet",
    "Montage",
    "Recording",
    "Region",
    "WindowLoader",
    "Windows",
    "adaptation_split",
    "find_outliers",
    "leave_one_subject_out",
    "make_windows",
    "max_abs",
    "read_arff",
    "read_dreamer",
    "read_eeg_table",
    "read_mat",
    "read_raw_files",
    "split_by_recording",
    "split_by_subject",
    "split_by_time",
    "standardise",
    "time_folds",
    "treat_outliers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
