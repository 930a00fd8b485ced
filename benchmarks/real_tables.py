"""Read the real data sets of `quality_real.py` into polars frames with plain columns and binary labels.

MovieLens-100K (GroupLens) as RecBole's atomic files, the first 10,000 rows of the Criteo Display Advertising
challenge, and the Adult census (UCI). They are not part of this repository.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl

ADULT = [
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation"),
    *("relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country"),
    "income",
]


def _atomic(path: Path) -> pl.DataFrame:
    frame = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    return frame.rename({name: name.split(":")[0] for name in frame.columns})


def movielens(root: Path, *, ids: bool, labels: int = 1) -> pl.DataFrame:
    """MovieLens-100K: a rating above 3 is positive, below 3 negative, 3 is dropped.

    Args:
        root: Folder that holds ``movielens_100k``.
        ids: Keep the user and item ids.
        labels: 1 for ``like``; 2 keeps all ratings and gives ``like`` (4 or 5) and ``love`` (5).
    """
    folder = root / "movielens_100k"
    frame = (
        _atomic(folder / "ml-100k.inter")
        .join(_atomic(folder / "ml-100k.user"), on="user_id")
        .join(_atomic(folder / "ml-100k.item"), on="item_id")
    )
    rating = pl.col("rating").cast(pl.Float64)
    if labels == 1:
        frame = frame.filter(rating != 3).with_columns(like=(rating > 3).cast(pl.Int8))
    else:
        frame = frame.with_columns(like=(rating > 3).cast(pl.Int8), love=(rating == 5).cast(pl.Int8))
    frame = frame.with_columns(genres=pl.col("class").str.split(" "), age=pl.col("age").cast(pl.Float64))
    frame = frame.drop("rating", "timestamp", "class", "movie_title")
    return frame if ids else frame.drop("user_id", "item_id")


def criteo(root: Path) -> pl.DataFrame:
    """The first 10,000 rows of Criteo: 13 counts, 26 hashed categories, label ``click``."""
    names = ["click", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    frame = pl.read_csv(
        root / "criteo_10k" / "train_examples.txt",
        separator="\t",
        has_header=False,
        new_columns=names,
        infer_schema=False,
    )
    return frame.with_columns(pl.col("^I\\d+$").cast(pl.Float64), pl.col("click").cast(pl.Int8))


def adult(root: Path) -> pl.DataFrame:
    """Adult census with two labels: ``income`` (above 50K) and ``married``; spouse columns are dropped."""
    parts = []
    for name in ("adult.data.gz", "adult.test.gz"):
        with gzip.open(root / "adult" / name) as file:
            text = b"\n".join(line for line in file.read().splitlines() if line.count(b",") == len(ADULT) - 1)
        parts.append(pl.read_csv(text, has_header=False, new_columns=ADULT, infer_schema=False))
    frame = pl.concat(parts).with_columns(pl.all().str.strip_chars())
    frame = frame.with_columns(pl.when(pl.all() != "?").then(pl.all()).name.keep())
    numeric = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
    return frame.with_columns(
        pl.col(numeric).cast(pl.Float64),
        married=pl.col("marital_status").is_in(["Married-civ-spouse", "Married-AF-spouse"]).cast(pl.Int8),
        income=pl.col("income").str.starts_with(">").cast(pl.Int8),
    ).drop("marital_status", "relationship")
