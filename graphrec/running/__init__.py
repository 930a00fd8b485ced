"""Carry out recipes: every variant on every split with every seed, into one folder with a report.

    from graphrec.running import run_recipe

    run = run_recipe("motifs", "runs/motifs", seeds=2, changes={"training.epochs": 20})
    run.summary["histograph"]["test/accuracy"]

A task is a function; see `graphrec.running.tasks`. Importing this loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import build_estimator
    from .checking import check_recipe
    from .results import Repetition
    from .runner import RecipeRun, run_recipe
    from .tasks import TASKS, Job, Outcome, Task, register_task

_MODULES = {
    "building": ("build_estimator",),
    "checking": ("check_recipe",),
    "results": ("Repetition",),
    "runner": ("RecipeRun", "run_recipe"),
    "tasks": ("TASKS", "Job", "Outcome", "Task", "register_task"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "TASKS",
    "Job",
    "Outcome",
    "RecipeRun",
    "Repetition",
    "Task",
    "build_estimator",
    "check_recipe",
    "register_task",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
