"""From tensors, arrays and lists to checked numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import DataError

Array = NDArray[Any]


def to_numpy(values: Any) -> Array:
    """A numpy array of anything array-like; a tensor may be on any device, need gradients or be bf16."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":
            values = values.float()
        return np.asarray(values.numpy())
    return np.asarray(values)


def check_probabilities(p: Array) -> Array:
    """``p`` as float32 or float64, with every value in [0, 1].

    Raises:
        DataError: A value is NaN or outside.
    """
    if p.dtype not in (np.float32, np.float64):
        p = p.astype(np.float32 if p.dtype == np.float16 else np.float64)
    wrong = ~((p >= 0) & (p <= 1))
    if wrong.any():
        found = p[wrong].flat[0]
        raise DataError(
            f"predictions: {int(wrong.sum())} of {p.size} are not probabilities (the first is {found}); "
            "give values from 0 to 1"
        )
    return p


def check_labels(y: Array) -> tuple[Array, Array]:
    """Positive and known as two bool arrays of the shape of ``y``; NaN means that the label is not known.

    Raises:
        DataError: A value is neither 0, 1 nor NaN.
    """
    if y.dtype == bool:
        return y, np.ones_like(y)
    positive, known = y == 1, np.isin(y, (0, 1))
    wrong = ~known if y.dtype.kind != "f" else ~known & ~np.isnan(y)
    if wrong.any():
        count, found = int(wrong.sum()), y[wrong].flat[0]
        raise DataError(f"labels: {count} of {y.size} are neither 0 nor 1 (the first is {found})")
    return positive, known


def check_weights(weights: Any, rows: int) -> Array:
    """(rows,) weights as floats.

    Raises:
        DataError: Another length, or a weight is negative, NaN or infinite.
    """
    w = to_numpy(weights)
    if w.shape != (rows,):
        raise DataError(f"weights: shape {w.shape}, expected ({rows},)")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise DataError("weights: all must be finite and not negative")
    return w


def clean(y: Any, p: Any, weights: Any = None) -> tuple[Array, Array, Array | None, Array]:
    """Positive (n,) bool, probability (n,) and weight (n,) or None of the rows that count, and which (N,).

    Rows without a label and rows of weight zero are left out.

    Args:
        y: (N,) labels, 0, 1 or NaN for not known.
        p: (N,) probabilities.
        weights: (N,) sample weights, or None.

    Raises:
        DataError: The shapes differ or a value is not allowed.
    """
    y_, p_ = to_numpy(y), to_numpy(p)
    if y_.ndim != 1 or y_.shape != p_.shape:
        raise DataError(f"labels and predictions: shapes {y_.shape} and {p_.shape}, expected two equal (N,)")
    p_ = check_probabilities(p_)
    positive, keep = check_labels(y_)
    if weights is None:
        if keep.all():
            return positive, p_, None, keep
        return positive[keep], p_[keep], None, keep
    w = check_weights(weights, len(p_))
    keep = keep & (w > 0)
    return positive[keep], p_[keep], w[keep], keep


def first_of_run(values: Array) -> Array:
    """(N,) bool, true where a run of equal values begins."""
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return first


def sum_runs(values: Array, starts: Array) -> Array:
    """Sum of ``values`` (N,) over each run that begins at ``starts``."""
    return np.add.reduceat(values, starts) if len(starts) else values[:0]
