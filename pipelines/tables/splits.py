"""Splits: which rows train, which validate, which test. Every split is a pure function of its arguments."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import ConfigError, DataError, SchemaError

from .number_coders import to_datetime
from .schema import Column, Role, TableSchema
from .values import as_floats, factorize, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa

    from .sources import Table

PART_NAMES = ("train", "valid", "test")
TRAIN, VALID, TEST = 0, 1, 2
_DENOMINATOR = 1_000_000

Assign = Callable[["pa.RecordBatch", int], np.ndarray]
"""From a batch and the index of its first row to the (n,) part of each row."""


@dataclass(frozen=True)
class Split:
    """How rows are divided; make one with `random`, `time`, `group`, `order`, `files` or `none`."""

    kind: str
    valid: Any = 0.0
    test: Any = 0.0
    seed: int = 0
    stratify: bool = False
    column: str | None = None
    tables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def random(cls, valid: float = 0.1, test: float = 0.1, seed: int = 0, stratify: bool = True) -> Split:
        """Random rows; with ``stratify`` every part has the labels in the proportions of the whole."""
        _check_fractions(valid, test)
        return cls("random", valid, test, seed, stratify)

    @classmethod
    def time(cls, column: str, valid: Any = 0.1, test: Any = 0.1) -> Split:
        """The latest rows: as fractions, or as the times from which each part begins.

        Rows of one time always fall into one part; rows without a time train.
        """
        fractions = [_is_fraction(v) for v in (valid, test) if v]
        if all(fractions):
            _check_fractions(valid, test)
        elif any(fractions):
            raise ConfigError(f"Split.time: valid={valid!r} and test={test!r} mix a fraction and a time")
        return cls("time", valid, test, column=column)

    @classmethod
    def group(cls, column: str, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
        """Whole groups: all rows of a user are in one part. Fractions count groups."""
        _check_fractions(valid, test)
        return cls("group", valid, test, seed, column=column)

    @classmethod
    def order(cls, valid: float = 0.1, test: float = 0.1) -> Split:
        """The last rows of the table, in its order: train, then valid, then test."""
        _check_fractions(valid, test)
        return cls("order", valid, test)

    @classmethod
    def files(cls, train: Any = None, valid: Any = None, test: Any = None) -> Split:
        """Tables of their own; ``train=None`` takes the table that is being fitted."""
        if valid is None and test is None and train is None:
            raise ConfigError("Split.files: give at least one of train, valid and test")
        tables = {k: v for k, v in zip(PART_NAMES, (train, valid, test), strict=True) if v is not None}
        return cls("files", tables=tables)

    @classmethod
    def none(cls) -> Split:
        """All rows train."""
        return cls("none")

    def describe(self) -> dict[str, Any]:
        """What decides the division, JSON-able (given tables apart)."""
        return {
            "kind": self.kind,
            "valid": str(self.valid),
            "test": str(self.test),
            "seed": self.seed,
            "stratify": self.stratify,
            "column": self.column,
        }

    def columns(self, schema: TableSchema) -> list[str]:
        """Columns that it must read besides the schema's own."""
        if self.kind == "random" and self.stratify:
            return list(schema.labels)
        return [self.column] if self.column else []

    def assigner(self, table: Table, schema: TableSchema) -> Assign | None:
        """The function that gives each row its part; None when all rows train.

        Raises:
            SchemaError: The column is missing or of a wrong type.
            DataError: No row would be left to train on.
        """
        if self.column is not None and self.column not in table.columns:
            raise SchemaError(
                f"{table.name}: the split's column {self.column!r} is missing{near(self.column, table)}"
            )
        if self.kind in ("none", "files"):
            return None
        return getattr(self, f"_by_{self.kind}")(table, schema)

    def _by_random(self, table: Table, schema: TableSchema) -> Assign:
        seen: dict[bytes, int] = {}
        labels = schema.labels[:4] if self.stratify else ()

        def assign(batch: pa.RecordBatch, start: int) -> np.ndarray:
            if not labels:
                return self._draw(np.arange(start, start + batch.num_rows), 0)
            return self._stratified([factorize(batch.column(c)) for c in labels], seen)

        return assign

    def _stratified(self, factors: list[Any], seen: dict[bytes, int]) -> np.ndarray:
        out = np.zeros(len(factors[0].codes), np.uint8)
        names = [[*f.values.to_list(), None] for f in factors]
        shape = [len(n) for n in names]
        combined = np.ravel_multi_index([f.codes for f in factors], shape)
        for combination in np.flatnonzero(np.bincount(combined)):
            rows = np.flatnonzero(combined == combination)
            chosen = np.unravel_index(combination, shape)
            key = repr([n[int(c)] for n, c in zip(names, chosen, strict=True)]).encode()
            first = seen.get(key, 0)
            salt = zlib.crc32(key)
            out[rows] = self._draw(np.arange(first, first + len(rows)), salt)
            seen[key] = first + len(rows)
        return out

    def _draw(self, index: np.ndarray, salt: int) -> np.ndarray:
        """Parts of the index-th rows of a stratum: one random row of every 1/fraction is held out."""
        held = round((self.valid + self.test) * _DENOMINATOR)
        out = np.full(len(index), TRAIN, np.uint8)
        if held == 0:
            return out
        chosen, order = _one_of_each(index, held, self.seed, salt)
        share = round(self.test / (self.valid + self.test) * _DENOMINATOR)
        is_test = (
            _one_of_each(order[chosen], share, self.seed + 1, salt)[0]
            if share
            else np.zeros(chosen.sum(), bool)
        )
        out[chosen] = np.where(is_test, TEST, VALID)
        return out

    def _by_order(self, table: Table, schema: TableSchema) -> Assign:
        total = table.n_rows()
        test = round(total * self.test)
        edges = np.array([total - test - round(total * self.valid), total - test])
        _refuse_no_train(int(edges[0]), table)

        def assign(batch: pa.RecordBatch, start: int) -> np.ndarray:
            rows = np.arange(start, start + batch.num_rows)
            return np.searchsorted(edges, rows, side="right").astype(np.uint8)

        return assign

    def _by_group(self, table: Table, schema: TableSchema) -> Assign:
        column = self.column or ""

        def assign(batch: pa.RecordBatch, start: int) -> np.ndarray:
            factor = factorize(batch.column(column))
            place = _uniform(stable_hash(factor.values), self.seed)
            part = np.where(place < self.test, TEST, np.where(place < self.test + self.valid, VALID, TRAIN))
            part[factor.values.is_null().to_numpy()] = TRAIN
            return np.append(part, TRAIN).astype(np.uint8)[factor.codes]

        return assign

    def _by_time(self, table: Table, schema: TableSchema) -> Assign:
        name = self.column or ""
        column = schema[name] if name in schema else Column(name=name, role=Role.TIMESTAMP)
        if all(_is_fraction(v) for v in (self.valid, self.test)):
            edges = self._time_edges(table, column)
        else:
            edges = self._given_edges()

        def assign(batch: pa.RecordBatch, start: int) -> np.ndarray:
            times = _times(batch.column(column.name), column)
            return np.searchsorted(edges, np.nan_to_num(times, nan=-np.inf), side="right").astype(np.uint8)

        return assign

    def _given_edges(self) -> np.ndarray:
        valid, test = _moment(self.valid, self.column), _moment(self.test, self.column)
        if valid > test and self.valid:
            raise ConfigError(f"Split.time: valid begins at {self.valid}, after test at {self.test}")
        return np.array([min(valid, test), test])

    def _time_edges(self, table: Table, column: Column) -> np.ndarray:
        chunks = [_times(b.column(0), column) for b in table.batches([column.name])]
        times = np.concatenate(chunks)
        times = np.sort(times[~np.isnan(times)])
        if not len(times):
            raise DataError(f"{table.name}: the split's column {column.name!r} holds no times")
        total = len(times)
        test = total - round(total * self.test)
        valid = test - round(total * self.valid)
        edges = [times[i] if i < total else np.inf for i in (valid, test)]
        if edges[0] <= times[0] and self.valid:
            raise DataError(
                f"{table.name}: cannot split by {column.name!r}: "
                "most rows have its earliest value, so none would train"
            )
        return np.array(edges)


def _one_of_each(index: np.ndarray, numerator: int, seed: int, salt: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide 0, 1, 2, ... into runs of 1/fraction and pick a random member of each.

    Returns:
        Whether each index is picked, and the number of its run.
    """
    run = index * numerator // _DENOMINATOR
    begin = -(-run * _DENOMINATOR // numerator)
    end = -(-(run + 1) * _DENOMINATOR // numerator)
    place = _uniform(run.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), seed ^ salt)
    return index == begin + (place * (end - begin)).astype(np.int64), run


def _uniform(keys: np.ndarray, seed: int) -> np.ndarray:
    """[0, 1) floats from 64-bit keys and a seed."""
    from .values import mix

    salted = (
        keys
        ^ mix(np.array([(seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) & ((1 << 64) - 1)], np.uint64))[0]
    )
    return (mix(salted) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _times(array: pa.Array, column: Column) -> np.ndarray:
    """Comparable float64 times (seconds), NaN for null."""
    import pyarrow as pa

    moment = pa.types.is_temporal(array.type) and not pa.types.is_duration(array.type)
    if moment or _holds_text(array) or column.unit:
        import polars as pl

        stamps = to_datetime(array, column)
        if stamps.dtype == pl.Time:
            raise SchemaError(
                f"the split's column {column.name!r} is a time of day; give a date or timestamp"
            )
        micros = stamps.dt.timestamp("us").cast(pl.Float64).fill_null(np.nan).to_numpy()
        return micros / 1e6
    return as_floats(array)[0].astype(np.float64)


def _holds_text(array: pa.Array) -> bool:
    import pyarrow as pa

    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _moment(value: Any, column: str | None) -> float:
    """The start of a part as seconds (or in the unit of a numeric column); infinity for none."""
    import datetime as dt

    if value is None or value == 0.0:
        return float("inf")
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise ConfigError(f"Split.time: {value!r} is not a date; write it like 2024-05-31") from error
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    if isinstance(value, int | float):
        return float(value)
    raise ConfigError(f"Split.time: {column!r} cannot be compared with {value!r}; give a date or a number")


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _check_fractions(valid: Any, test: Any) -> None:
    for name, value in (("valid", valid), ("test", test)):
        if not _is_fraction(value):
            raise ConfigError(f"split: {name}={value!r} must be a fraction from 0 to below 1")
    if valid + test >= 1:
        raise ConfigError(f"split: valid={valid} and test={test} leave no rows to train on")


def _refuse_no_train(rows: int, table: Table) -> None:
    if rows <= 0:
        raise DataError(f"{table.name}: the split leaves no rows to train on; lower valid and test")


def near(name: str, table: Table) -> str:
    """A suggestion for a misspelt column name, or what there is."""
    import difflib

    close = difflib.get_close_matches(name, table.columns, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    names = list(table.columns)
    more = ", ..." if len(names) > 8 else ""
    return f"; it has {', '.join(names[:8])}{more}"
