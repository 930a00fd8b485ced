"""A click log with a column of every role."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl


def make_log(rows: int = 600, seed: int = 0) -> pl.DataFrame:
    """A click log with a column of every role."""
    rng = np.random.default_rng(seed)
    item = rng.zipf(1.5, rows) % 40
    start = dt.datetime(2024, 5, 1)
    tags = np.array(["news", "sport", "music", "film"])
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, 50, rows),
            "item_id": [f"i{k}" for k in item],
            "price": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(3, 2, rows)),
            "age": pl.Series(rng.integers(18, 80, rows)),
            "premium": rng.random(rows) < 0.3,
            "hist_item_id": [[f"i{k}" for k in rng.integers(0, 40, rng.integers(0, 6))] for _ in range(rows)],
            "tags": ["|".join(tags[rng.permutation(4)[: rng.integers(1, 4)]]) for _ in range(rows)],
            "shown_at": [start + dt.timedelta(minutes=37 * i) for i in range(rows)],
            "weight": rng.uniform(0.5, 2.0, rows),
            "click": (rng.random(rows) < 0.3).astype(np.int8),
        }
    )
