"""Whether a table has what a schema needs: types first, then the few columns whose every value matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphrec.errors import DataError, SchemaError

from .opening import open_table, wide_problem
from .schema import Column, Role, TableSchema
from .sources import Table
from .splits import near
from .targets import bad_weight, class_lookup, one_class, order_classes, unknown_class
from .values import MISSING_TEXT, text_in_numbers

if TYPE_CHECKING:
    import polars as pl


def check_table(schema: TableSchema, data: Any, require_labels: bool | None) -> Table:
    """Open a table and check it; see `TableSchema.check`."""
    table = open_table(data)
    targets = [] if require_labels is None else _targets(schema, table, require_labels)
    for column in [*schema.features, *targets]:
        if column.name not in table.columns:
            where = near(column.name, table)
            raise SchemaError(f"{table.name}: the {_kind(column)} column {column.name!r} is missing{where}")
        _check_type(table, column)
    _check_numbers(table, [c for c in schema.features if c.role is Role.NUMERIC])
    for column in targets:
        if column.role is Role.LABEL:
            check_label(table, column)
        elif column.role is Role.WEIGHT:
            check_weight(table, column.name)
    return table


def _targets(schema: TableSchema, table: Table, required: bool) -> list[Column]:
    names = [*schema.labels, *(n for n in (schema.weight, schema.group) if n is not None)]
    names = [n for n in dict.fromkeys(names) if not schema[n].is_feature]
    return [schema[n] for n in names if required or n in table.columns]


def _kind(column: Column) -> str:
    return "feature" if column.is_feature else column.role.value


def _check_type(table: Table, column: Column) -> None:
    kind = table.columns[column.name]
    if column.role in (Role.SEQUENCE, Role.MULTI):
        problem = _list_problem(kind, column)
    else:
        problem = nested_problem(kind)
        if problem is None and column.role is Role.TIMESTAMP:
            problem = _time_problem(kind, column)
    if problem:
        raise SchemaError(f"{table.name}: column {column.name!r} {problem}")


def nested_problem(kind: pl.DataType) -> str | None:
    """Why a column of this type cannot be a flat feature; None when it can."""
    import polars as pl

    if wide := wide_problem(kind):
        return wide
    if isinstance(kind, pl.Struct):
        return "is a struct; unnest it into columns of its own, or ignore it"
    if kind == pl.Binary:
        return "is binary; decode it to text or numbers, or ignore it"
    if isinstance(kind, pl.List | pl.Array):
        return "is a list; give it the role sequence or multi, or ignore it"
    if kind in (pl.Int128, pl.UInt128):
        return f"is {kind}, which nothing else reads; cast it to Int64, Float64 or text, or ignore it"
    if kind == pl.Object:
        return "holds Python objects; give it one type such as string, or ignore it"
    if kind.is_nested() or isinstance(kind, pl.datatypes.BaseExtension):
        return f"is {kind}, which no role can use; cast it to text or numbers, or ignore it"
    return None


def _list_problem(kind: pl.DataType, column: Column) -> str | None:
    import polars as pl

    if isinstance(kind, pl.List | pl.Array):
        return items_problem(kind)
    if kind == pl.Null or (column.separator and kind in (pl.String, pl.Categorical, pl.Enum)):
        return None
    return f"is {kind}, not a list (role {column.role}); give it a separator if it is text, or another role"


def items_problem(kind: pl.List | pl.Array) -> str | None:
    """Why lists of this type cannot be a feature; None when they can."""
    import polars as pl

    inner = kind.inner
    if isinstance(inner, pl.List | pl.Array):
        return "is a list of lists; flatten it to one list a row, or ignore it"
    if inner in (pl.Int128, pl.UInt128):
        return f"is a list of {inner}, which nothing else reads; cast it to Int64 or text, or ignore it"
    if isinstance(inner, pl.Struct) or inner in (pl.Binary, pl.Object):
        return f"is a list of {str(inner).split('(')[0].lower()}s; keep one plain field of them, or ignore it"
    if inner.is_float() or inner.is_decimal():
        return "is a list of decimal numbers, not of categories; cast it to integers or text, or ignore it"
    return None


def _time_problem(kind: pl.DataType, column: Column) -> str | None:
    import polars as pl

    if isinstance(kind, pl.Datetime) or kind in (pl.Date, pl.Null, pl.String, pl.Categorical):
        return None
    if kind.is_numeric() and column.unit:
        return None
    return f"is {kind}, not a timestamp; give it a unit (s, ms, us, ns) if it is a number, or another role"


def _check_numbers(table: Table, columns: Sequence[Column]) -> None:
    """Text in numeric columns must be digits: count what is not, in one query for all columns."""
    import polars as pl

    textual = (pl.String, pl.Categorical, pl.Enum)
    suspects = [
        c.name for c in columns if table.columns[c.name] in textual and c.name not in table.all_numbers
    ]
    if not suspects:
        return
    queries = []
    for i, name in enumerate(suspects):
        text = pl.col(name).cast(pl.String).str.strip_chars()
        bad = text.cast(pl.Float64, strict=False).is_null() & ~text.str.to_lowercase().is_in(MISSING_TEXT)
        queries += [bad.sum().alias(f"rows{i}"), text.filter(bad).first().alias(f"example{i}")]
    found = table.collect(table.lazy.select(queries)).row(0, named=True)
    for i, name in enumerate(suspects):
        if found[f"rows{i}"]:
            problem = text_in_numbers(name, found[f"example{i}"], found[f"rows{i}"])
            raise SchemaError(f"{table.name}: {problem}")
    table.all_numbers.update(suspects)


def check_label(table: Table, column: Column) -> None:
    """Raise DataError when a label holds a value that is none of its two classes, or nothing at all."""
    counts = table.value_counts(column.name)
    if column.classes is None:
        label_classes(table, column.name)
        return
    known = class_lookup(column.classes)
    for text, rows in counts.items():
        if text is not None and text not in known:
            raise DataError(unknown_class(table.name, column, text, rows))
    if not any(text is not None for text in counts):
        raise DataError(f"{table.name}: label column {column.name!r} is null in every row")


def check_weight(table: Table, name: str) -> None:
    """Raise DataError when a weight is negative, missing or infinite, or all are zero."""
    import polars as pl

    if wide := wide_problem(table.columns[name]):
        raise SchemaError(f"{table.name}: weight column {name!r} {wide}")
    if not (table.columns[name].is_numeric() or table.columns[name] == pl.Boolean):
        raise SchemaError(
            f"{table.name}: weight column {name!r} is {table.columns[name]}; weights are numbers"
        )
    value = pl.col(name).cast(pl.Float64)
    wrong = value.is_null() | ~value.is_finite() | (value < 0)
    found = table.collect(
        table.lazy.select(
            wrong.sum().alias("rows"),
            value.filter(wrong).first().alias("example"),
            (value > 0).any().alias("positive"),
        )
    ).row(0, named=True)
    if found["rows"]:
        example = float("nan") if found["example"] is None else found["example"]
        raise DataError(bad_weight(table.name, name, example, found["rows"]))
    if not found["positive"]:
        raise DataError(f"{table.name}: weight column {name!r} is zero in every row; give some row a weight")


def label_classes(table: Table, name: str) -> tuple[Any, Any]:
    """The two values of a label, positive last.

    Raises:
        DataError: There are more or fewer than two.
    """
    kind = table.columns[name]
    problem = nested_problem(kind)
    if problem:
        raise SchemaError(f"{table.name}: label column {name!r} {problem}")
    counts = {t: n for t, n in table.value_counts(name).items() if t is not None}
    if len(counts) == 2:
        return order_classes([_typed(t, kind) for t in counts])
    if not counts:
        raise DataError(f"{table.name}: label column {name!r} is null in every row; a label needs two values")
    if len(counts) == 1:
        only = next(iter(counts))
        raise DataError(
            f"{table.name}: label column {name!r} has only one value, {only!r}; it needs two, such as 0 and 1"
        )
    shown = ", ".join(repr(v) for v in sorted(_typed(t, kind) for t in counts)[:5])
    raise DataError(
        f"{table.name}: label column {name!r} has {len(counts)} different values ({shown}"
        f"{', ...' if len(counts) > 5 else ''}); a label needs exactly two, such as 0 and 1"
    )


def _typed(text: str, kind: pl.DataType) -> Any:
    import polars as pl

    if kind == pl.Boolean:
        return text == "true"
    if kind.is_integer():
        return int(text)
    if kind.is_numeric():
        number = float(text)
        return int(number) if number.is_integer() else number
    return text


def check_both_classes(table: Table, column: Column) -> None:
    """Raise DataError when the rows to train on cannot have both classes; cheaper than to find out later."""
    low, high = column.classes or label_classes(table, column.name)
    known = class_lookup((low, high))
    found = {known[t] for t in table.value_counts(column.name) if t is not None}
    if len(found) == 1:
        raise DataError(one_class(table.name, column.name, (low, high), positive=1.0 in found))
