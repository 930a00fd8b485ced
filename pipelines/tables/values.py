"""Arrow columns to the few forms that encoding needs: codes with their distinct strings, floats, flat lists.

Categories are compared as text, so that 7, "7" and 7.0 are one category whichever way a file stores it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

MISSING_TEXT = ("", "nan", "na", "n/a", "null", "none")
"""Strings (in any case) that mean a missing number."""


class Factor(NamedTuple):
    """A column as codes into its distinct values.

    Attributes:
        codes: (n,) integers; ``len(values)`` stands for null.
        values: Distinct strings of the column; may itself hold a null.
        source: The Arrow dictionary that ``values`` come from, to notice that a batch repeats it.
    """

    codes: np.ndarray
    values: pl.Series
    source: Any = None


def factorize(array: pa.Array) -> Factor:
    """Codes and distinct values of a column of any flat type."""
    import pyarrow as pa

    if pa.types.is_null(array.type):
        return Factor(np.zeros(len(array), np.int32), text_values(pa.array([], pa.string())))
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    codes = to_numpy(array.indices, null=len(array.dictionary))
    return Factor(codes, text_values(array.dictionary), array.dictionary)


_NUMPY_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}


def to_numpy(array: pa.Array, null: float = np.nan) -> np.ndarray:
    """A numeric array as numpy: a view when it has no nulls, else a copy with ``null`` in their places.

    Arrow's own ``to_numpy`` (and its ``fill_null``) import pandas where that is installed: half a second.
    """
    dtype = np.dtype(_NUMPY_NAMES.get(str(array.type), str(array.type)))
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(0, dtype)
    values = np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)
    if not array.null_count:
        return values
    out = values.copy() if dtype.kind == "f" or not np.isnan(null) else values.astype(np.float64)
    out[~is_valid(array)] = null
    return out


def is_valid(array: pa.Array) -> np.ndarray:
    """(n,) bool: where an array is not null."""
    bitmap = array.buffers()[0]
    if bitmap is None or not array.null_count:
        return np.ones(len(array), bool)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].view(bool)


def text_values(values: pa.Array) -> pl.Series:
    """Values as the strings that categories are compared by; empty strings and NaN become null."""
    import polars as pl

    return text_of(pl.Series(values))


def text_of(series: pl.Series) -> pl.Series:
    """`text_values` of a polars series."""
    import polars as pl

    if series.dtype.is_float():
        whole = (series == series.round()) & (series.abs() < 2.0**53)
        out = pl.DataFrame({"x": series, "whole": whole.fill_null(False)}).select(
            pl.when(pl.col("x").is_nan())
            .then(None)
            .when("whole")
            .then(pl.col("x").cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(pl.col("x").cast(pl.String))
        )
        return out.to_series()
    if isinstance(series.dtype, pl.Decimal):  # 3.00 of a database is the 3 of another file
        text = series.cast(pl.String)
        return text.str.strip_chars_end("0").str.strip_chars_end(".") if series.dtype.scale else text
    if isinstance(series.dtype, pl.Duration):  # the same however finely a file counts
        return series.dt.to_string("iso")
    if series.dtype != pl.String:
        return series.cast(pl.String)
    if (series == "").any():
        return series.set(series == "", None)
    return series


def as_floats(array: pa.Array) -> tuple[np.ndarray, BadText | None]:
    """A column as floats with NaN for null: float32 stays float32, all else becomes float64.

    Returns:
        The floats, and what text could not be read as a number, if any.
    """
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind) or _is_text(kind):
        return _parse(factorize(array))
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan, np.float32), None
    if pa.types.is_float16(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return to_numpy(array), None
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_temporal(kind):
        return _seconds(array), None
    return to_numpy(array.cast(pa.float64(), safe=False)), None


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def text_in_numbers(name: str, example: str, rows: int) -> str:
    """The message for text in a numeric column."""
    return (
        f"column {name!r} should hold numbers but has text in {rows} row{'s' * (rows != 1)}, "
        f"such as {example!r}; clean it, or give it the role categorical and fit again"
    )


class BadText(NamedTuple):
    """Text in a numeric column."""

    example: str
    rows: int


def _parse(factor: Factor) -> tuple[np.ndarray, BadText | None]:
    import polars as pl

    text = factor.values.str.strip_chars()
    missing = text.is_null() | text.str.to_lowercase().is_in(MISSING_TEXT)
    numbers = text.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & ~missing).to_numpy()
    lookup = np.append(numbers.fill_null(np.nan).to_numpy(), np.nan)
    problem = None
    if bad.any():
        rows = int(np.append(bad, False)[factor.codes].sum())
        problem = BadText(factor.values[int(np.flatnonzero(bad)[0])], rows) if rows else None
    return lookup[factor.codes], problem


def _seconds(array: pa.Array) -> np.ndarray:
    import polars as pl

    series = pl.Series(array)
    if series.dtype == pl.Date:
        series = series.cast(pl.Datetime("us"))
    unit = getattr(series.dtype, "time_unit", None) or "ns"  # a time of day counts nanoseconds
    scale = {"ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    return series.to_physical().cast(pl.Float64).fill_null(np.nan).to_numpy() / scale


def flatten(array: pa.Array) -> tuple[np.ndarray, Factor]:
    """Lengths and coded items of a list column, without null items; a null list has length 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.int64), factorize(pa.array([], pa.string()))
    lengths = to_numpy(pc.list_value_length(array), null=0).astype(np.int64)
    items = factorize(pc.list_flatten(array))
    present = np.append(items.values.is_not_null().to_numpy(), False)[items.codes]
    if present.all():
        return lengths, items
    rows = np.repeat(np.arange(len(lengths)), lengths)[present]
    return np.bincount(rows, minlength=len(lengths)), items._replace(codes=items.codes[present])


def pad(codes: np.ndarray, lengths: np.ndarray, width: int, *, keep: str) -> np.ndarray:
    """Ragged codes as an (n, width) int32 matrix with 0 on the right.

    Args:
        codes: All items in order.
        lengths: (n,) items per row.
        width: Most items to keep.
        keep: ``"last"`` or ``"first"`` of a row that is longer.
    """
    out = np.zeros((len(lengths), width), np.int32)
    kept = np.minimum(lengths, width)
    if (lengths > width).any():
        ends = np.cumsum(lengths)
        starts = np.maximum(ends - width, ends - lengths) if keep == "last" else ends - lengths
        shift = starts - (np.cumsum(kept) - kept)  # from a place among the kept items to that among all
        codes = codes[np.repeat(shift, kept) + np.arange(kept.sum())]
    out[np.arange(width) < kept[:, None]] = codes
    return out


_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _byte_table() -> np.ndarray:
    x = (np.arange(1, 257, dtype=np.uint64)) * np.uint64(_MULTIPLIER)
    return mix(x)


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014), elementwise."""
    x = x.copy()
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def stable_hash(values: pl.Series) -> np.ndarray:
    """(n,) uint64 hash of strings, the same in every process, machine and version; null hashes to 0.

    A polynomial in a random byte substitution modulo 2**64, mixed at the end; all strings at once.
    """
    import polars as pl
    import pyarrow as pa

    array = pa.array(values.to_arrow(compat_level=pl.CompatLevel.oldest()), pa.large_string())
    offsets = np.frombuffer(array.buffers()[1], np.int64, len(array) + 1, array.offset * 8)
    lengths = np.diff(offsets)
    data = array.buffers()[2]
    raw = (
        np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    )
    position = np.arange(len(raw)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    powers = _powers(int(lengths.max(initial=0)))
    terms = _byte_table()[raw] * powers[position]
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    sums = totals[offsets[1:] - offsets[0]] - totals[offsets[:-1] - offsets[0]]
    out = mix(sums + lengths.astype(np.uint64) * np.uint64(_MULTIPLIER))
    if values.null_count():
        out[values.is_null().to_numpy()] = 0
    return out


def _powers(count: int) -> np.ndarray:
    out = np.full(max(count, 1), np.uint64(_MULTIPLIER), np.uint64)
    out[0] = 1
    return np.cumprod(out, dtype=np.uint64)
