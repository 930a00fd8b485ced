"""CTR models, graph classifiers and vision backbones on one kernel layer.

    from graphrec import CTRClassifier

    model = CTRClassifier(model="fcn").fit("log.parquet", label="click")
    model.predict_proba("tomorrow.parquet")

The names below load when they are first used, so importing graphrec costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphrec.estimators import CTRClassifier as CTRClassifier
    from graphrec.explain import Explanation as Explanation
    from graphrec.export import export_run as export_run
    from graphrec.registry import card as card
    from graphrec.registry import create_model as create_model
    from graphrec.registry import list_models as list_models
    from graphrec.running import run_recipe as run_recipe
    from graphrec.vision import ImageClassifier as ImageClassifier

    __version__: str

_HOME = {
    "CTRClassifier": "graphrec.estimators",
    "Explanation": "graphrec.explain",
    "ImageClassifier": "graphrec.vision",
    "card": "graphrec.registry",
    "create_model": "graphrec.registry",
    "export_run": "graphrec.export",
    "list_models": "graphrec.registry",
    "run_recipe": "graphrec.running",
}

__all__ = [
    "CTRClassifier",
    "Explanation",
    "ImageClassifier",
    "__version__",
    "card",
    "create_model",
    "export_run",
    "list_models",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("graphrec")
    if name == "vision":
        return importlib.import_module("graphrec.vision")
    if name not in _HOME:
        raise AttributeError(f"module 'graphrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
