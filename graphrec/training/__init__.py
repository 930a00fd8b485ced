"""The training loop: `Trainer` fits any model that can tell its loss, `TrainConfig` holds its settings.

The names below load when they are first used, so `TrainConfig` can be had without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import TrainConfig as TrainConfig
    from .engine import Trainer as Trainer
    from .history import History as History
    from .interfaces import BatchSource as BatchSource
    from .interfaces import Metrics as Metrics
    from .interfaces import TrainableModel as TrainableModel
    from .seeding import seeded as seeded

_HOME = {
    "BatchSource": "interfaces",
    "History": "history",
    "Metrics": "interfaces",
    "TrainConfig": "config",
    "TrainableModel": "interfaces",
    "Trainer": "engine",
    "seeded": "seeding",
}

__all__ = ["BatchSource", "History", "Metrics", "TrainConfig", "TrainableModel", "Trainer", "seeded"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graphrec.training' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
