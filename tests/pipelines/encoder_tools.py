"""A table encoded in one go, and one of its columns."""

from __future__ import annotations

import numpy as np

from graphrec.pipelines.tables import EncodedTable, Split, TableEncoder, TableSchema


def fit(
    frame, label: str | list[str] = "y", split: Split | None = None, changes: dict | None = None, **options
):
    schema = TableSchema.infer(frame, label, **options)
    for name, change in (changes or {}).items():
        schema = schema.replace(name, **change)
    encoder = TableEncoder(schema)
    return encoder, encoder.fit_encode(frame, split)


def column(encoder: TableEncoder, part: EncodedTable, name: str) -> np.ndarray:
    batch = part.read(0, len(part)).features
    for fields, values in (
        (encoder.spec.categorical, batch.categorical),
        (encoder.spec.numeric, batch.numeric),
    ):
        for j, field in enumerate(fields):
            if field.name == name:
                return values[:, j].numpy()
    index = [f.name for f in encoder.spec.lists].index(name)
    return batch.lists[index].numpy()
