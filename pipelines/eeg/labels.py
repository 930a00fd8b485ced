"""Labels of recordings: from whatever the file holds to codes of sorted classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import DataError

from ..frames import class_codes


def encode(values: Sequence[Any] | np.ndarray, name: str) -> tuple[Tensor, tuple[str | int, ...]]:
    """Codes, int64 (n,), and the classes: numbers, in their order, or text.

    Raises:
        DataError: A label is missing.
    """
    import polars as pl

    listed = np.asarray(values)
    if listed.dtype.kind == "S":
        listed = np.char.decode(listed, "utf-8")
    if listed.dtype.kind in "UO":
        text = pl.Series("label", [str(v) for v in listed.tolist()])
        number = text.cast(pl.Int64, strict=False)
        column = text if number.null_count() else number
    else:
        if listed.dtype.kind == "f" and not np.isfinite(listed).all():
            raise DataError(f"{name}: row {int((~np.isfinite(listed)).argmax()) + 1} has no label")
        column = pl.Series("label", listed)
    codes, classes = class_codes(column, name)
    return torch.from_numpy(codes), tuple(classes)
