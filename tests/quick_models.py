"""CTR models that are fitted in a moment."""

from __future__ import annotations

from typing import Any

from graphrec import CTRClassifier

QUICK: dict[str, Any] = {
    "epochs": 4, "batch_size": 64, "learning_rate": 0.05, "embedding_dim": 4, "accelerator": "cpu",
    "random_state": 0,
}  # fmt: skip
IGNORE = ("like",)


def quick(model: str = "fm", **changes: Any) -> CTRClassifier:
    return CTRClassifier(model, **{**QUICK, **changes})
