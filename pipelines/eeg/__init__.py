"""EEG: recordings from files and tables, artefacts, windows, and splits that do not leak."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arff import read_arff
    from .arrays import windows_of
    from .artefacts import find_outliers, treat_outliers
    from .choosing import last_seconds, of_subject
    from .container import EEGSet, Recording, channel_index
    from .dreamer import read_dreamer
    from .filtering import average_reference, band_pass, band_pass_windows
    from .headsets import EPOC, EPOC3, EPOC5, find_montage
    from .mat import read_mat
    from .montage import Montage, Region
    from .opening import open_eeg
    from .preparing import Preparation, open_labelled
    from .raw_files import read_raw_files
    from .scaling import max_abs, measure_scale, rescale, standardise
    from .splits import (
        adaptation_split,
        leave_one_subject_out,
        refuse_shared_samples,
        split_by_recording,
        split_by_subject,
        split_by_time,
        split_windows,
        time_folds,
    )
    from .tables import read_eeg_table
    from .windows import WindowLoader, Windows, make_windows

_MODULES = {
    "arff": ("read_arff",),
    "arrays": ("windows_of",),
    "artefacts": ("find_outliers", "treat_outliers"),
    "choosing": ("last_seconds", "of_subject"),
    "container": ("EEGSet", "Recording", "channel_index"),
    "dreamer": ("read_dreamer",),
    "filtering": ("average_reference", "band_pass", "band_pass_windows"),
    "headsets": ("EPOC", "EPOC3", "EPOC5", "find_montage"),
    "mat": ("read_mat",),
    "montage": ("Montage", "Region"),
    "opening": ("open_eeg",),
    "preparing": ("Preparation", "open_labelled"),
    "raw_files": ("read_raw_files",),
    "scaling": ("max_abs", "measure_scale", "rescale", "standardise"),
    "splits": (
        "refuse_shared_samples",
        "adaptation_split",
        "leave_one_subject_out",
        "split_by_recording",
        "split_by_subject",
        "split_by_time",
        "split_windows",
        "time_folds",
    ),
    "tables": ("read_eeg_table",),
    "windows": ("WindowLoader", "Windows", "make_windows"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "EPOC",
    "EPOC3",
    "EPOC5",
    "EEGSet",
    "Montage",
    "Preparation",
    "Recording",
    "Region",
    "WindowLoader",
    "Windows",
    "adaptation_split",
    "average_reference",
    "band_pass",
    "band_pass_windows",
    "channel_index",
    "find_montage",
    "find_outliers",
    "last_seconds",
    "leave_one_subject_out",
    "make_windows",
    "max_abs",
    "measure_scale",
    "of_subject",
    "open_eeg",
    "open_labelled",
    "read_arff",
    "read_dreamer",
    "read_eeg_table",
    "read_mat",
    "read_raw_files",
    "refuse_shared_samples",
    "rescale",
    "split_by_recording",
    "split_by_subject",
    "split_by_time",
    "split_windows",
    "standardise",
    "time_folds",
    "treat_outliers",
    "windows_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
