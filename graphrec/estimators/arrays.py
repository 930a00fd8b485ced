"""From ``fit(X, y)`` to a table: scikit-learn's checks, then one polars frame with label and weight
columns.
"""

from __future__ import annotations

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
    if is_frame(X) or (isinstance(X, list) and X and isinstance(X[0], (str, bytes))):
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
        weight, values = _free("sample_weight", set(frame.columns)), _weights(sample_weight, len(frame))
        frame = frame.with_columns(pl.Series(weight, values)).filter(pl.col(weight) > 0)
        for name, pair in zip(columns, classes, strict=True):
            if frame[name].n_unique() < 2:
                raise DataError(f"y: only one class of {pair.tolist()} is left among the rows with a weight")
    return LabelledFrame(frame, tuple(columns), weight, tuple(classes))


def encode_targets(y: Any, classes: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
    """y as (N, T) float32 of 0 and 1, given the two values of each label."""
    columns = _columns(y)
    return np.stack(
        [np.asarray(values == pair[-1], np.float32) for values, pair in zip(columns, classes, strict=True)], 1
    )


def _to_polars(X: Any) -> pl.DataFrame:
    import polars as pl

    if isinstance(X, pl.LazyFrame):
        return X.collect()
    if isinstance(X, pl.DataFrame):
        return X
    if type(X).__module__.startswith("pyarrow"):
        return pl.DataFrame(pl.from_arrow(X))
    named = X.rename(columns=str) if hasattr(X, "rename") else X
    return pl.from_pandas(named)


def _series(name: str, values: NDArray[Any]) -> pl.Series:
    """One column of an array; objects become numbers if all are, strings otherwise."""
    import polars as pl

    if values.dtype.kind == "O":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            return pl.Series(name, [None if v is None or v != v else str(v) for v in values], dtype=pl.String)
    if values.dtype.kind in "US":
        return pl.Series(name, values.astype(str).tolist(), dtype=pl.String)
    if values.dtype == np.float16 or values.dtype.kind == "g":
        values = values.astype(np.float32)
    return pl.Series(name, np.ascontiguousarray(values))


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


def _weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
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


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
