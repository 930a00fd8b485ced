"""From ``fit(X, y)`` to a table: scikit-learn's checks, then one polars frame with label and weight
columns.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d, validate_data

from graphrec.errors import DataError

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledFrame:
    """Features, labels and weights in one frame.

    Attributes:
        frame: The columns of X, then the labels as 0 and 1, then the weights if there are any.
        labels: Names of the label columns.
        weight: Name of the weight column, or None.
        classes: The two original values of each label, negative first.
    """

    frame: pl.DataFrame
    labels: tuple[str, ...]
    weight: str | None
    classes: tuple[NDArray[Any], ...]


def is_frame(X: Any) -> bool:
    """Whether X has named columns: a polars, pandas or Arrow table."""
    return hasattr(X, "collect_schema") or hasattr(X, "columns")


def is_array(X: Any) -> bool:
    """Whether X is what scikit-learn calls array-like and not a path, a frame or a dict of columns."""
    if is_frame(X) or (isinstance(X, list) and X and isinstance(X[0], (str, bytes, os.PathLike))):
        return False
    return isinstance(X, (list, np.ndarray)) or hasattr(X, "__array__") or hasattr(X, "toarray")


def features_frame(estimator: BaseEstimator, X: Any, *, reset: bool) -> pl.DataFrame:
    """X as a frame, after scikit-learn's checks of names, of the number of columns and of what an array may
    hold.
    """
    if is_frame(X):
        frame = _to_polars(X)
        validate_data(estimator, X if hasattr(X, "shape") else frame, skip_check_array=True, reset=reset)
        return frame
    import polars as pl

    array = validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite=False)
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(array.shape[1])])
    return pl.DataFrame([_series(str(name), array[:, i]) for i, name in enumerate(names)])


def labelled_frame(estimator: BaseEstimator, X: Any, y: Any, sample_weight: Any) -> LabelledFrame:
    """Check X, y and the weights, and put them into one frame; rows of weight zero are left out.

    Raises:
        ValueError: X, y or the weights break scikit-learn's rules, or y is not binary.
    """
    import polars as pl

    frame = features_frame(estimator, X, reset=True)
    check_consistent_length(frame, y)
    columns, classes = _targets(y, set(frame.columns))
    frame = frame.with_columns([pl.Series(name, values) for name, values in columns.items()])
    weight = None
    if sample_weight is not None:
        weight, values = _free("sample_weight", set(frame.columns)), check_weights(sample_weight, len(frame))
        frame = frame.with_columns(pl.Series(weight, values)).filter(pl.col(weight) > 0)
        for name, pair in zip(columns, classes, strict=True):
            if frame[name].n_unique() < 2:
                raise DataError(f"y: only one class of {pair.tolist()} is left among the rows with a weight")
    return LabelledFrame(frame, tuple(columns), weight, tuple(classes))


def encode_targets(y: Any, classes: Sequence[NDArray[Any]], rows: int) -> NDArray[np.bool_]:
    """y as (N, T) bool, true where it is the positive one of the two values of its label.

    Raises:
        DataError: y has other values than those fitted on, or not one for each of the ``rows`` and labels.
    """
    columns = _columns(y)
    if len(columns) != len(classes) or any(len(values) != rows for values in columns):
        raise DataError(
            f"y: has {len(columns[0])} rows and {len(columns)} labels, X has {rows} rows and the classifier "
            f"{len(classes)} label{'s' * (len(classes) != 1)}; give one value for each"
        )
    for values, pair in zip(columns, classes, strict=True):
        strange = ~np.isin(values, pair)
        if strange.any():
            raise DataError(
                f"y: has {values[strange].tolist()[0]!r} in {int(strange.sum())} of {rows} rows; expected "
                f"what the classifier was fitted on, {' and '.join(map(repr, pair.tolist()))}"
            )
    return np.stack([values == pair[-1] for values, pair in zip(columns, classes, strict=True)], 1)


def check_weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """Weights as (N,) float64.

    Raises:
        DataError: There is not one for each row, or one is negative, NaN or infinite, or all are zero.
    """
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,):
        raise DataError(
            f"sample_weight: shape is {weights.shape}, expected one weight for each of the {rows} rows"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DataError("sample_weight: has negative, NaN or infinite values; give finite weights from 0 up")
    if not weights.any():
        raise DataError("sample_weight: all weights are zero; at least one row must count")
    return weights


def _to_polars(X: Any) -> pl.DataFrame:
    from graphrec.pipelines.tables import open_table

    table = open_table(X, "X")
    return table.frame if table.frame is not None else table.collect(table.lazy)


def _series(name: str, values: NDArray[Any]) -> pl.Series:
    """One column of an array; objects become numbers if all are, strings otherwise."""
    import polars as pl

    if values.dtype.kind == "O":
        try:
            if any(isinstance(value, str) for value in values):
                raise TypeError("the digits of an id are no number")
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            return pl.Series(name, [None if _missing(v) else str(v) for v in values], dtype=pl.String)
    if values.dtype.kind in "US":
        return pl.Series(name, values.astype(str).tolist(), dtype=pl.String)
    if values.dtype == np.float16 or values.dtype.kind == "g":
        values = values.astype(np.float32)
    return pl.Series(name, np.ascontiguousarray(values))


def _missing(value: Any) -> bool:
    """Whether an object is None, NaN, or pandas' NaT or NA (which does not say whether it equals itself)."""
    try:
        return value is None or bool(value != value)
    except TypeError:
        return True


def _columns(y: Any) -> list[NDArray[Any]]:
    """y (N,), (N, 1) or (N, T) as one array per label."""
    array = y.to_numpy() if is_frame(y) else np.asarray(y)
    if array.ndim == 2 and array.shape[1] > 1:
        return [array[:, t] for t in range(array.shape[1])]
    return [column_or_1d(y, warn=True)]


def _targets(y: Any, taken: set[str]) -> tuple[dict[str, NDArray[np.int8]], list[NDArray[Any]]]:
    columns = _columns(y)
    if is_frame(y):
        names = [str(name) for name in y.columns]
    else:
        first = str(getattr(y, "name", None) or "label")
        names = [first] if len(columns) == 1 else [f"{first}{t}" for t in range(len(columns))]
    encoded: dict[str, NDArray[np.int8]] = {}
    classes = []
    for name, values in zip(names, columns, strict=True):
        pair = _two_classes(values)
        encoded[_free(name, taken | set(encoded))] = np.asarray(values == pair[1], np.int8)
        classes.append(pair)
    return encoded, classes


def _two_classes(y: NDArray[Any]) -> NDArray[Any]:
    if y.dtype.kind in "fO":
        assert_all_finite(y, input_name="y")
    missing = sum(value is None for value in y) if y.dtype.kind == "O" else 0
    if missing:
        raise DataError(f"y: is None in {missing} of {len(y)} rows; leave rows without a label out")
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    values = np.unique(y)
    if len(values) > 2 or kind not in ("binary", "multiclass"):
        raise DataError(
            f"Only binary classification is supported. The type of the target is {kind}. "
            f"y: has {len(values)} values; give two, or one column per label"
        )
    if len(values) < 2:
        raise DataError(
            f"y: has one class only ({values[0] if len(values) else 'none'}); a classifier needs two"
        )
    return values


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
