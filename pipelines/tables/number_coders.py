"""Coders of numbers and timestamps; see `coders`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import SchemaError

from .features import FIRST_ID, NULL_ID, Field, FieldKind
from .schema import PARTS, Column
from .transforms import Bucketer, Knots, Scaler
from .values import as_floats, text_in_numbers

if TYPE_CHECKING:
    import pyarrow as pa

    from .coders import Rows


class NumericCoder:
    """A numeric column to scaled float32, or to positions among knots."""

    def __init__(self, column: Column, scaler: Scaler | None = None) -> None:
        self.column = column
        if scaler is None:
            piecewise = column.transform == "piecewise"
            scaler = Knots(column.bins) if piecewise else Scaler(column.transform)
        self.scaler = scaler

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray:
        """(n,) float32 raw values; takes the moments, or a sample, of the training rows."""
        values = _numbers(array, self.column.name)
        raw = _as_float32(lambda: self.scaler.raw(values), self.column.name)
        self.scaler.observe(raw if train is None else raw[train])
        return raw

    def finish(self) -> None:
        """Fix shift and factor, or the knots."""
        self.scaler.finish()

    def final(self, raw: np.ndarray) -> np.ndarray:
        """(n,) float32 scaled values."""
        return self.scaler.scale(raw)

    def encode(self, array: pa.Array) -> np.ndarray:
        """(n,) float32 scaled values, NaN where missing."""
        values = _numbers(array, self.column.name)
        return self.scaler.scale(_as_float32(lambda: self.scaler.raw(values)))

    def field(self) -> Field:
        """The encoded field."""
        if not isinstance(self.scaler, Knots) or self.scaler.knots is None:
            return Field(self.column.name, FieldKind.NUMERIC)
        knots, centre = len(self.scaler.knots), self.scaler.centre
        return Field(self.column.name, FieldKind.NUMERIC, knots=knots, centre=centre)

    def counts(self) -> np.ndarray:
        """Nothing: a number has no vocabulary."""
        return np.zeros(0, np.int64)

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs."""
        return self.scaler.state()


class _FixedIds:
    """What the fields with ids but without strings share: counting."""

    def __init__(self, column: Column) -> None:
        self.column = column

    def counts(self) -> np.ndarray:
        """(size,) int64 training rows by id."""
        return self._counts

    _counts: np.ndarray


class BucketCoder(_FixedIds):
    """A numeric column to quantile buckets, a categorical field."""

    def __init__(self, column: Column, bucketer: Bucketer | None = None) -> None:
        super().__init__(column)
        self.bucketer = bucketer or Bucketer(column.bins)
        self._counts = self.bucketer.counts

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray:
        """(n,) float32 values; keeps a sample of the training rows."""
        numbers = _numbers(array, self.column.name)
        values = _as_float32(lambda: numbers.astype(np.float32), self.column.name)
        self.bucketer.observe(values if train is None else values[train])
        return values

    def tally(self, ids: np.ndarray) -> None:
        """Count training rows; ids are known only after `finish`."""
        self._counts += np.bincount(ids, minlength=len(self._counts))

    def finish(self) -> None:
        """Fix the edges."""
        self.bucketer.finish()
        self._counts = self.bucketer.counts

    def final(self, raw: np.ndarray) -> np.ndarray:
        """(n,) int32 bucket ids."""
        return self.bucketer.ids(raw)

    def encode(self, array: pa.Array) -> np.ndarray:
        """(n,) int32 bucket ids."""
        values = _numbers(array, self.column.name)
        return self.bucketer.ids(_as_float32(lambda: values.astype(np.float32)))

    def field(self) -> Field:
        """The encoded field."""
        return Field(self.column.name, FieldKind.CATEGORICAL, self.bucketer.size)

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs."""
        edges = self.bucketer.edges if self.bucketer.edges is not None else np.zeros(0)
        return {"edges": [float(e) for e in edges], "counts": self._counts.tolist()}


class PartCoder(_FixedIds):
    """A part of a timestamp, such as the hour, to ids in the order of its values."""

    def __init__(self, column: Column, part: str, counts: np.ndarray | None = None) -> None:
        super().__init__(column)
        self.part = part
        self._counts = np.zeros(FIRST_ID + PARTS[part], np.int64) if counts is None else counts

    def fit(self, array: pa.Array, train: Rows) -> np.ndarray:
        """(n,) int32 ids; counts the training rows."""
        ids = self.encode(array)
        self._counts += np.bincount(ids if train is None else ids[train], minlength=len(self._counts))
        return ids

    def finish(self) -> None:
        """Nothing is learned."""

    def final(self, raw: np.ndarray) -> np.ndarray:
        """The ids themselves, as int32."""
        return raw.astype(np.int32, copy=False)

    def encode(self, array: pa.Array) -> np.ndarray:
        """(n,) int32 ids; null is 0."""
        import polars as pl

        time = pl.col("t").dt
        value = {
            "hour": time.hour(),
            "weekday": time.weekday() - 1,
            "day": time.day() - 1,
            "month": time.month() - 1,
            "hour_of_week": (time.weekday().cast(pl.Int32) - 1) * 24 + time.hour(),
            "weekend": (time.weekday() >= 6).cast(pl.Int32),
        }[self.part]
        stamps = on_the_clock(to_datetime(array, self.column), self.column).alias("t").to_frame()
        ids = stamps.select((value.cast(pl.Int32) + FIRST_ID).fill_null(NULL_ID)).to_series()
        return ids.to_numpy()

    def field(self) -> Field:
        """The encoded field, called ``column.part``."""
        return Field(f"{self.column.name}.{self.part}", FieldKind.CATEGORICAL, FIRST_ID + PARTS[self.part])

    def state(self) -> dict[str, Any]:
        """What a saved encoder needs."""
        return {"counts": self._counts.tolist()}


def on_the_clock(times: Any, column: Column) -> Any:
    """Times as the clock of the column's zone shows them; those that name no zone are what a clock shows."""
    if column.zone is None:
        return times
    if times.dtype.time_zone is None:
        if column.unit is None:
            return times
        times = times.dt.replace_time_zone("UTC")
    return times.dt.convert_time_zone(column.zone)


def to_datetime(array: pa.Array, column: Column) -> Any:
    """A timestamp column as a polars Datetime series; text and numbers are parsed.

    Raises:
        SchemaError: It is text, of which no value looks like a date.
    """
    import polars as pl

    series = pl.Series(array)
    if series.dtype == pl.Date:
        return series.cast(pl.Datetime("us"))
    if series.dtype in (pl.Categorical, pl.Enum):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        number = series.cast(pl.Float64, strict=False) if column.unit else None
        if number is None:
            try:
                return series.str.to_datetime(strict=False, time_unit="us")
            except pl.exceptions.ComputeError as error:
                example = next((text for text in series.drop_nulls().head(1)), None)
                raise SchemaError(
                    f"column {column.name!r} should hold times but has text such as {example!r}; "
                    "write them like 2024-05-31 12:00:00, or use another column"
                ) from error
        series = number
    if series.dtype.is_numeric():
        scale = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}[column.unit or "s"]
        return (
            (series.cast(pl.Float64).fill_nan(None) * scale)
            .cast(pl.Int64, strict=False)
            .cast(pl.Datetime("us"))
        )
    if series.dtype == pl.Null:
        return series.cast(pl.Datetime("us"))
    return series


def _numbers(array: pa.Array, name: str) -> np.ndarray:
    values, bad = as_floats(array)
    if bad is not None:
        raise SchemaError(text_in_numbers(name, bad.example, bad.rows))
    return values


def _as_float32(cast: Callable[[], np.ndarray], name: str | None = None) -> np.ndarray:
    """What ``cast`` gives; numbers too large for float32 become infinite, told of column ``name``."""
    try:
        with np.errstate(over="raise"):
            return cast()
    except FloatingPointError:
        if name is not None:
            warnings.warn(
                f"column {name!r} has numbers beyond 3.4e38, the largest that models take, which count as "
                "infinite; scale them, or give it transform: log",
                UserWarning,
                stacklevel=3,
            )
        with np.errstate(over="ignore"):
            return cast()
