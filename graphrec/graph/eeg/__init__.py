"""EEG: HiSTN and its estimator, protocols, pictures.

Importing this loads no torch; the names below load when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bands import band_losses, candidate_bands, log_powers, power_regression
    from .batches import WindowBatch, WindowBatches
    from .classifier import EEGClassifier
    from .histn import Gates, HiSTN, gaussian_labels, histn_3, histn_5
    from .layers import ChebyshevFilter
    from .pictures import gates_figure
    from .protocols import subject_adapted, subject_dependent
    from .scores import eeg_metrics

_MODULES = {
    "bands": ("band_losses", "candidate_bands", "log_powers", "power_regression"),
    "batches": ("WindowBatch", "WindowBatches"),
    "classifier": ("EEGClassifier",),
    "histn": ("Gates", "HiSTN", "gaussian_labels", "histn_3", "histn_5"),
    "layers": ("ChebyshevFilter",),
    "pictures": ("gates_figure",),
    "protocols": ("subject_adapted", "subject_dependent"),
    "scores": ("eeg_metrics",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ChebyshevFilter",
    "EEGClassifier",
    "Gates",
    "HiSTN",
    "WindowBatch",
    "WindowBatches",
    "band_losses",
    "candidate_bands",
    "eeg_metrics",
    "gates_figure",
    "gaussian_labels",
    "histn_3",
    "histn_5",
    "log_powers",
    "power_regression",
    "subject_adapted",
    "subject_dependent",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
