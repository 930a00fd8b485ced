"""Guessing a schema: types first, then names and a sample of the values, as a practitioner would."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import ConfigError, SchemaError

from .checks import check_weight, items_problem, label_classes, nested_problem
from .opening import open_table, wide_problem
from .schema import Column, Role, TableSchema
from .sources import Table
from .splits import near
from .written_numbers import present_text, warn_of_written_numbers

if TYPE_CHECKING:
    import polars as pl

_ID_NAME = re.compile(
    r"(^|[^a-z])(id|ids|uid|iid|pid|sid|uuid|guid|code|zip|zipcode|postcode|hash|sku|asin|isbn|ip|cate|category|brand)"
    r"($|[^a-z])|(id|code|zip)$",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(
    r"(^|[^a-z])(timestamp|time|ts|datetime|date|unixtime)($|[^a-z])|_at$|timestamp$", re.IGNORECASE
)
_MULTI_NAME = re.compile(r"(genre|tag|categor|keyword|topic|interest|hobb|skill)", re.IGNORECASE)
_GROUP_NAMES = ("user_id", "user", "userid", "uid")
_HISTORY = re.compile(
    r"(^|_)(hist|history|past|prev|previous|clicked|click|viewed|seen|seq|sequence|list|recent|last)(?=_|$)"
)
_INDEX_NAMES = ("", "Unnamed: 0", "__index_level_0__")
"""What pandas makes of an index without a name in CSV, in CSV that was read again, and in parquet."""
_FEW = 20
_SEPARATORS = "|;,"
_UNITS = (("s", 3e8, 2e10), ("ms", 3e11, 2e13), ("us", 3e14, 2e16), ("ns", 3e17, 2e19))
"""Ranges of numbers that are times since 1970, from about 1980 on."""


def infer_schema(
    data: Any,
    label: str | Sequence[str] | None,
    weight: str | None,
    group: str | None,
    time: str | None,
    roles: Mapping[str, str],
    ignore: Sequence[str],
) -> TableSchema:
    """See `TableSchema.infer`."""
    table = open_table(data)
    labels, ignore = _names("label", label), _names("ignore", ignore)
    _refuse_unknown(table, labels, weight, group, time, roles, ignore)
    wanted = {name: _role(name, role) for name, role in roles.items()}
    labels += [n for n, r in wanted.items() if r is Role.LABEL and n not in labels]
    wanted |= dict.fromkeys(labels, Role.LABEL) | dict.fromkeys(ignore, Role.IGNORED)
    if weight is not None:
        wanted[weight] = Role.WEIGHT
    usable = [n for n in table.columns if wanted.get(n) is not Role.IGNORED]
    for name, kind in table.columns.items():  # ignored ones too, since the sample below has all columns
        if problem := wide_problem(kind):
            raise SchemaError(f"{table.name}: column {name!r} {problem}, or leave it out of the file")
    _refuse_nested(table, [n for n in usable if n not in wanted])
    sample = table.sample()
    columns = [_column(table, sample, n, wanted.get(n), n == group) for n in table.columns]
    columns = _share(columns, sample)
    warn_of_written_numbers(table, sample, [c for c in columns if c.name not in wanted])
    for column in columns:
        if column.role is Role.WEIGHT:
            check_weight(table, column.name)
    return TableSchema.build(columns, group=group or _group(columns), time=time or _time(columns))


def _names(argument: str, value: str | Sequence[str] | None) -> list[str]:
    """A name, several or none as a list."""
    names: Any = [value] if isinstance(value, str) else value or ()
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{argument}: {value!r} is neither the name of a column nor a list of names")
    return list(names)


def _refuse_unknown(
    table: Table,
    labels: Sequence[str],
    weight: str | None,
    group: str | None,
    time: str | None,
    roles: Mapping[str, str],
    ignore: Sequence[str],
) -> None:
    named = [("label", n) for n in labels] + [("weight", weight), ("group", group), ("time", time)]
    named += [("role", n) for n in roles] + [("ignored", n) for n in ignore]
    for kind, name in named:
        if name is not None and name not in table.columns:
            raise SchemaError(f"{table.name}: the {kind} column {name!r} is missing{near(name, table)}")
    clash = [n for n in labels if n in (weight, group) or n in ignore]
    if clash:
        raise SchemaError(f"{table.name}: column {clash[0]!r} cannot be the label and something else")


def _role(name: str, role: str) -> Role:
    try:
        return Role(role)
    except ValueError as error:
        raise SchemaError(f"column {name!r}: unknown role {role!r}; choose from {', '.join(Role)}") from error


def _refuse_nested(table: Table, names: Sequence[str]) -> None:
    import polars as pl

    for name in names:
        kind = table.columns[name]
        problem = items_problem(kind) if isinstance(kind, pl.List | pl.Array) else nested_problem(kind)
        if problem:
            raise SchemaError(f"{table.name}: column {name!r} {problem}")


def _column(table: Table, sample: pl.DataFrame, name: str, role: Role | None, is_group: bool) -> Column:
    kind = table.columns[name]
    base: dict[str, Any] = {"name": name, "dtype": _type_name(kind)}
    if role is Role.LABEL:
        return Column(**base, role=role, classes=label_classes(table, name))
    if role in (Role.WEIGHT, Role.IGNORED, Role.GROUP):
        return Column(**base, role=role)
    values = sample[name]
    if role is None and name in _INDEX_NAMES and kind.is_integer():
        note = "has no name: taken for an index that was written with the rows"
        return Column(**base, role=Role.IGNORED, note=note)
    if role is None:
        role = Role.CATEGORICAL if is_group else _guess(name, kind, values)
    return Column(**base, role=role, **_options(name, role, kind, values))


def _type_name(kind: pl.DataType) -> str:
    return (
        str(kind)
        .lower()
        .replace("datetime(time_unit=", "datetime(")
        .replace("time_zone=none", "")
        .replace(", )", ")")
    )


def _guess(name: str, kind: pl.DataType, values: pl.Series) -> Role:
    import polars as pl

    if isinstance(kind, pl.List | pl.Array):
        return Role.MULTI if _MULTI_NAME.search(name) else Role.SEQUENCE
    if isinstance(kind, pl.Datetime) or kind == pl.Date:
        return Role.TIMESTAMP
    if kind in (pl.Time, pl.Duration) or kind.is_decimal():
        return Role.NUMERIC
    if kind.is_integer():
        return _guess_integer(name, values)
    if kind.is_float():
        return Role.CATEGORICAL if _ID_NAME.search(name) and _is_whole(values) else Role.NUMERIC
    if kind == pl.String:
        return _guess_string(name, values)
    return Role.CATEGORICAL


def _guess_integer(name: str, values: pl.Series) -> Role:
    rows = len(values) - values.null_count()
    if _TIME_NAME.search(name) and _unit(values):
        return Role.TIMESTAMP
    if _ID_NAME.search(name):
        return Role.CATEGORICAL
    distinct = values.drop_nulls().n_unique()
    if distinct <= min(_FEW, max(2, rows // 10)):
        return Role.CATEGORICAL
    return Role.CATEGORICAL if rows and max(map(abs, _range(values))) > 2**31 else Role.NUMERIC


def _guess_string(name: str, values: pl.Series) -> Role:
    if _looks_like_dates(values):
        return Role.TIMESTAMP
    if _looks_like_decimals(values):
        return Role.NUMERIC
    integers = _integers_beside_missing(values)
    if integers is not None and _guess_integer(name, integers) is Role.NUMERIC:
        return Role.NUMERIC
    return Role.MULTI if _separator(values) else Role.CATEGORICAL


def _is_whole(values: pl.Series) -> bool:
    present = values.drop_nulls().drop_nans()
    return bool(len(present)) and bool((present == present.round()).all())


def _looks_like_dates(values: pl.Series) -> bool:
    present = values.drop_nulls().head(2000)
    return bool(len(present)) and bool(
        present.str.contains(r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2})?.*)?$").all()
    )


def _integers_beside_missing(values: pl.Series) -> pl.Series | None:
    """The integers of a column that is text only because some read NA or the like, or have blanks around.

    None for any other: text that is digits alone was written as text on purpose, such as ids.
    """
    import polars as pl

    present, given = present_text(values), values.drop_nulls()
    bare = given.str.strip_chars()
    if not len(present) or (len(present) == (bare != "").sum() and not (bare != given).any()):
        return None
    numbers = present.cast(pl.Int64, strict=False)
    leading_zero = present.str.contains(r"^[+-]?0\d")
    return None if numbers.null_count() or leading_zero.any() else numbers


def _looks_like_decimals(values: pl.Series) -> bool:
    present = present_text(values)
    if not len(present):
        return False
    number = present.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$") | present.str.contains(
        "(?i)^(inf|-inf)$"
    )
    return bool(number.all()) and bool(present.str.contains(".", literal=True).any())


def _separator(values: pl.Series) -> str | None:
    """The character that clearly splits strings into lists of few distinct items."""
    distinct = values.drop_nulls().unique()
    for separator in _SEPARATORS:
        share = values.drop_nulls().str.contains(separator, literal=True).mean()
        if not isinstance(share, float) or share < 0.2:
            continue
        items = distinct.str.split(separator)
        lengths = items.list.len().to_numpy()
        varied = 1 < np.ptp(lengths) + 1 <= 50
        if varied and items.explode(empty_as_null=False).n_unique() <= 0.5 * len(distinct):
            return separator
    return None


def _unit(values: pl.Series) -> str | None:
    if values.null_count() == len(values):
        return None
    low, high = _range(values)
    return next((u for u, a, b in _UNITS if a <= low and high <= b), None)


def _range(values: pl.Series) -> tuple[float, float]:
    numbers = values.drop_nulls().to_numpy()
    return float(numbers.min()), float(numbers.max())


def _options(name: str, role: Role, kind: pl.DataType, values: pl.Series) -> dict[str, Any]:
    import polars as pl

    if role is Role.NUMERIC:
        return {"transform": "piecewise"}
    if role is Role.TIMESTAMP:
        unit = (_unit(values) or "s") if kind.is_numeric() else None
        zone = kind.time_zone if isinstance(kind, pl.Datetime) else None
        parts = ("weekday", "month") if kind == pl.Date else ("hour", "weekday")
        return {"parts": parts, "unit": unit, "zone": zone}
    if role in (Role.SEQUENCE, Role.MULTI) and kind == pl.String:
        return {"separator": _separator(values) or ","}
    if role is Role.CATEGORICAL and len(values) >= 1000 and values.n_unique() == len(values):
        return {"note": "every sampled value is different: consider ignoring it"}
    return {}


def _share(columns: list[Column], sample: pl.DataFrame) -> list[Column]:
    """Let a history such as ``hist_item_id`` use the vocabulary of ``item_id`` when their values overlap."""
    items = {_stem(c.name): c.name for c in columns if c.role is Role.CATEGORICAL}
    out = []
    for column in columns:
        target = items.get(_stem(column.name)) if column.role is Role.SEQUENCE else None
        if target is not None and _overlap(sample[column.name], sample[target], column.separator):
            column = column.model_copy(update={"shares": target})
        out.append(column)
    return out


def _stem(name: str) -> str:
    bare = _HISTORY.sub("", name.lower()).strip("_")
    return re.sub(r"s(?=_|$)", "", re.sub(r"_ids?$", "", bare))


def _overlap(lists: pl.Series, values: pl.Series, separator: str | None) -> bool:
    from .values import text_of

    items = lists.str.split(separator) if separator else lists
    known = text_of(values.unique()).drop_nulls()
    return bool(
        text_of(items.explode(empty_as_null=False).unique()).drop_nulls().is_in(known.implode()).any()
    )


def _group(columns: Sequence[Column]) -> str | None:
    told = next((c.name for c in columns if c.role is Role.GROUP), None)
    named = {c.name.lower(): c.name for c in columns if c.role is Role.CATEGORICAL}
    return told or next((named[n] for n in _GROUP_NAMES if n in named), None)


def _time(columns: Sequence[Column]) -> str | None:
    stamps = [c.name for c in columns if c.role is Role.TIMESTAMP]
    return stamps[0] if len(stamps) == 1 else None
