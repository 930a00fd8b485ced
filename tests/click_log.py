"""A small click log that a model can learn, for the tests of estimators and of the command line."""

from __future__ import annotations

import numpy as np
import polars as pl


def seen(rng: np.random.Generator) -> np.ndarray:
    """Up to five items."""
    return rng.integers(0, 12, rng.integers(0, 6))


def click_log(rows: int = 600, seed: int = 0) -> pl.DataFrame:
    """A log of ``rows`` impressions; clicks depend on user, item and price, likes on clicks."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 20, rows), rng.integers(0, 12, rows)
    price = rng.normal(size=rows)
    logit = 0.3 * (user - 9.5) + 0.5 * (item - 5.5) * np.where(user % 2, 1, -1) + price
    click = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return pl.DataFrame(
        {
            "user_id": user,
            "item": [f"item-{i}" for i in item],
            "hour": rng.integers(0, 24, rows),
            "price": pl.Series(price).set(pl.Series(rng.random(rows) < 0.05), None),
            "item_history": [
                [f"item-{i}" for i in rng.integers(0, 12, rng.integers(0, 6))] for _ in range(rows)
            ],
            "click": click.astype(np.int64),
            "like": (click & (rng.random(rows) < 0.5)).astype(np.int64),
        }
    )
