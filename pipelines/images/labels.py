"""Labels to codes: sorted classes of a new set, or the classes that a model was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from graphrec.errors import DataError

from ..frames import class_codes


def code_labels(
    column: pl.Series, name: str, classes: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...]]:
    """Codes of labels and the names of the classes.

    Args:
        column: Whole numbers, booleans or text.
        name: Of the data.
        classes: The classes in order; without them, the sorted values of the column.

    Returns:
        int64 (N,), and the classes.

    Raises:
        SchemaError: The labels are fractions or of another type.
        DataError: A label is missing, or is none of ``classes``.
    """
    codes, values = class_codes(column, name)
    found = [str(value) for value in values]
    labels = torch.from_numpy(np.ascontiguousarray(codes))
    if classes is None:
        return labels, tuple(found)
    return recode(labels, found, tuple(classes), name), tuple(classes)


def typed_classes(texts: Sequence[str], kind: pl.DataType | None) -> list[Any]:
    """Texts of classes as values of the type of the labels that they name: whole numbers, booleans or text.

    Args:
        texts: As `code_labels` gives them.
        kind: Type of the labels; None is text. What is no such value stays text.
    """
    if kind == pl.Boolean and set(texts) <= {"False", "True"}:
        return [text == "True" for text in texts]
    numbers = kind is not None and kind.is_numeric() and all(text.lstrip("-").isdecimal() for text in texts)
    return [int(text) for text in texts] if numbers else list(texts)


def recode(labels: Tensor, old: Sequence[str], new: tuple[str, ...], name: str) -> Tensor:
    """Codes in ``old`` as codes in ``new``.

    Raises:
        DataError: A class that occurs is not in ``new``.
    """
    places = {text: code for code, text in enumerate(new)}
    counts = torch.bincount(labels, minlength=len(old)).tolist()
    unseen = [text for text, count in zip(old, counts, strict=True) if count and text not in places]
    if unseen:
        images = sum(counts[old.index(text)] for text in unseen)
        more = f" and {len(unseen) - 5} more" if len(unseen) > 5 else ""
        raise DataError(
            f"{name}: {images} images are of classes that the model does not know "
            f"({', '.join(map(repr, unseen[:5]))}{more}); it knows {', '.join(map(repr, new[:10]))}"
            f"{', ...' if len(new) > 10 else ''}"
        )
    table = torch.tensor([places.get(text, -1) for text in old], dtype=torch.int64)
    return table[labels]


def as_weights(values: Any, count: int, name: str) -> Tensor:
    """Weights, one for each of ``count`` images, as float32 (count,).

    Args:
        values: Numbers from 0 up.
        count: How many images there are.
        name: Of the weights, for messages.

    Raises:
        DataError: Their number is another, one is negative or not finite, or all are zero.
    """
    try:
        weights = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name}: holds what is no number; give finite weights from 0 up") from None
    if weights.shape != (count,):
        raise DataError(f"{name}: shape is {weights.shape}, expected one weight for each of {count} images")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError(f"{name}: has missing, negative or infinite values; give finite weights from 0 up")
    if not weights.any():
        raise DataError(f"{name}: all weights are zero; at least one image must count")
    return torch.from_numpy(weights.astype(np.float32))


def as_column(labels: Any, count: int, name: str) -> pl.Series:
    """Labels that a caller gave, one for each of ``count`` images.

    Raises:
        DataError: Their number or shape is another.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else labels
    if not isinstance(values, pl.Series):
        array = np.asarray(values)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise DataError(f"{name}: labels of shape {array.shape}; give one for each of {count} images")
        values = pl.Series("labels", array.tolist(), strict=False)
    if len(values) != count:
        raise DataError(f"{name}: {len(values)} labels for {count} images; give one each")
    return values.alias("labels")
