"""Small encoded tables for the tests of the CTR models."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.pipelines.tables.features import Batch, Features, FeatureSpec, Field

CATEGORICAL = Field("colour", "categorical", size=7)
ITEM = Field("item", "categorical", size=9)
NUMERIC = Field("price", "numeric")
HISTORY = Field("history", "sequence", size=9, length=4, vocabulary="item")
TAGS = Field("tags", "multi", size=5, length=3)
MIXED = (CATEGORICAL, NUMERIC, HISTORY, ITEM, TAGS)
"""One field of each kind, and the item that the history consists of."""


def make_spec(*fields: Field, labels: int = 1) -> FeatureSpec:
    """A spec of these fields (all kinds when none are given) with labels y0, y1, ..."""
    return FeatureSpec(fields or MIXED, tuple(f"y{i}" for i in range(labels)))


def make_features(spec: FeatureSpec, rows: int, seed: int = 0) -> Features:
    """Random rows; every third numeric value is missing, and the last row's lists are empty."""
    generator = torch.Generator().manual_seed(seed)

    def ids(field: Field, *shape: int) -> Tensor:
        return torch.randint(0, field.size, (rows, *shape), generator=generator).int()

    columns = [ids(f) for f in spec.categorical]
    categorical = torch.stack(columns, 1) if columns else torch.empty(rows, 0, dtype=torch.int32)
    numeric = torch.randn(rows, len(spec.numeric), generator=generator)
    numeric[::3] = torch.nan
    lists = tuple(ids(f, f.length) for f in spec.lists)
    for items in lists:
        items[-1] = 0
    return Features(categorical, numeric, lists)


def make_batch(spec: FeatureSpec, rows: int, seed: int = 0) -> Batch:
    """Random rows with random labels."""
    generator = torch.Generator().manual_seed(seed + 1)
    labels = torch.rand(rows, len(spec.labels), generator=generator).round()
    return Batch(make_features(spec, rows, seed), labels)


def dense(gradient: Tensor) -> Tensor:
    """A gradient as a dense tensor."""
    return gradient.to_dense() if gradient.is_sparse else gradient
