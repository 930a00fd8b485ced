"""The part of a fit that comes before any model: open the table, check it, split it, encode it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.tables import (
    EncodedTable,
    Split,
    Table,
    TableEncoder,
    TableSchema,
    describe_leaks,
    find_leaks,
    open_table,
)
from graphrec.runs import plain_source

if TYPE_CHECKING:
    from .classifier import CTRClassifier


@dataclass(frozen=True)
class Prepared:
    """An encoded table, ready for any number of models.

    Attributes:
        table: The table as opened.
        schema: What its columns are.
        encoder: Fitted on the training rows.
        parts: ``"train"`` and, where there are any, ``"valid"`` and ``"test"``.
        fingerprint: Of the encoded rows of all parts, wherever their files are.
        leaks: Fields that give the label away.
        source: What a run's configuration says of the data.
    """

    table: Table
    schema: TableSchema
    encoder: TableEncoder
    parts: dict[str, EncodedTable]
    fingerprint: str
    leaks: list[str]
    source: dict[str, Any]


def prepare(
    estimator: CTRClassifier,
    data: Any,
    *,
    seed: int,
    label: str | Sequence[str] | None = None,
    validation: Any = None,
    test: Any = None,
    split: str = "random",
    weight: str | None = None,
    group: str | None = None,
    time: str | None = None,
    roles: Mapping[str, str] | None = None,
    ignore: Sequence[str] = (),
) -> Prepared:
    """Open, check, split and encode a table for an estimator; warns of columns that give the label away.

    The arguments are those of `CTRClassifier.fit`. Everything that can be refused is refused before rows are
    encoded.
    """
    table = open_table(data)
    special = {
        "weight": weight,
        "group": group,
        "time": time,
        "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore),
    }
    schema = _schema(table, estimator.schema, label, {**(estimator.roles or {}), **(roles or {})}, special)
    validation = estimator.validation if validation is None else validation
    division, further = make_split(validation, test, schema, kind=split, seed=seed, time=time)
    opened = {name: _checked(given, schema) for name, given in further.items()}
    encoder = TableEncoder(schema)
    parts = encoder.fit_encode(table, division, cache_dir=estimator.cache_dir)
    if "train" not in parts:
        raise DataError(f"{table.name}: no rows are left for training; lower validation and test")
    leaks = find_leaks(parts["train"])
    if leaks:
        warnings.warn(f"{table.name}: {describe_leaks(leaks)}", UserWarning, stacklevel=3)
    parts |= {name: encoder.encode(other, require_labels=True) for name, other in opened.items()}
    source = {
        "data": plain_source(data), "label": list(schema.labels), **special, "roles": dict(roles or {}),
        "validation": plain_source(validation), "test": plain_source(test), "split": split,
    }  # fmt: skip
    fingerprint = "-".join(part.fingerprint()[:16] for part in parts.values())
    return Prepared(table, schema, encoder, parts, fingerprint, leaks, source)


def _schema(
    table: Table,
    given: TableSchema | str | Path | None,
    label: str | Sequence[str] | None,
    roles: Mapping[str, str],
    special: Mapping[str, Any],
) -> TableSchema:
    """The given schema, or the one inferred from the table; checked against the table either way.

    Raises:
        ConfigError: No label is known, or a schema was given together with what it already says.
    """
    if given is None:
        if not label:
            raise ConfigError(
                "label: which column is to be predicted? Name it with label= (in scikit-learn's form, "
                "fit(X, y): CTRClassifier requires y to be passed, but the target y is None)"
            )
        found = TableSchema.infer(table, label=label, roles=dict(roles), **special)
    else:
        found = given if isinstance(given, TableSchema) else TableSchema.from_yaml(given)
        _check_agrees(found, label, roles, special)
    found.check(table, require_labels=True)
    return found


def _check_agrees(
    schema: TableSchema, label: Any, roles: Mapping[str, str], special: Mapping[str, Any]
) -> None:
    """Refuse what contradicts a given schema."""
    wanted = (label,) if isinstance(label, str) else tuple(label or ())
    if not schema.labels:
        raise ConfigError("schema: has no column of role label; give one that role")
    if wanted and set(wanted) != set(schema.labels):
        raise ConfigError(
            f"label: {', '.join(wanted)} was asked for, but the schema's is {', '.join(schema.labels)}"
        )
    known = {"weight": schema.weight, "group": schema.group, "time": schema.time}
    for key, value in {"roles": roles, **special}.items():
        if value and value != known.get(key):
            raise ConfigError(
                f"{key}: {value!r} is given beside a schema that says otherwise; change it in the schema"
            )


def _checked(data: Any, schema: TableSchema) -> Table:
    table = open_table(data)
    schema.check(table, require_labels=True)
    return table


def make_split(
    validation: Any, test: Any, schema: TableSchema, *, kind: str, seed: int, time: str | None
) -> tuple[Split, dict[str, Any]]:
    """How the rows are divided, and which parts are tables of their own.

    Args:
        validation: Fraction of the rows, path or table, or a `Split`, which then decides alone.
        test: Fraction of the rows, path or table, or None.
        schema: For the group and time columns.
        kind: ``"random"``, ``"order"``, ``"time"`` or ``"group"``, for fractions; a column may follow a
            colon.
        seed: Of random splits.
        time: Column of ``"time"`` when none follows the colon.

    Raises:
        ConfigError: The kind is unknown or lacks its column, or a fraction is none.
    """
    if isinstance(validation, Split):
        if test is not None:
            raise ConfigError("test: is given beside a Split for validation; put it into the Split")
        return validation, {}
    given = {"valid": validation, "test": test}
    fractions = {name: _fraction(name, value) for name, value in given.items()}
    tables = {name: value for name, value in given.items() if fractions[name] is None}
    valid, held_out = fractions["valid"] or 0.0, fractions["test"] or 0.0
    if tables and not valid and not held_out:
        return Split.files(**tables), {}  # encoded, and cached, together with the training rows
    return _fraction_split(valid, held_out, schema, kind, seed, time), tables


def _fraction(name: str, value: Any) -> float | None:
    """A fraction of the rows, 0 for None; None for a table."""
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)):
        return None
    if not 0 <= value < 1:
        raise ConfigError(f"{name}: {value} is not a fraction of the rows, at least 0 and below 1")
    return float(value)


def _fraction_split(
    valid: float, test: float, schema: TableSchema, kind: str, seed: int, time: str | None
) -> Split:
    if valid + test >= 1:
        raise ConfigError(
            f"validation, test: {valid} and {test} leave no rows for training; their sum must be below 1"
        )
    name, _, column = kind.partition(":")
    column = column or {"time": time or schema.time, "group": schema.group}.get(name) or ""
    if name not in ("random", "order", "time", "group") or (name in ("time", "group") and not column):
        raise ConfigError(f"split: {kind!r} is not one of random, order, time:COLUMN, group:COLUMN")
    if not valid and not test:
        return Split.none()
    if name == "random":
        return Split.random(valid=valid, test=test, seed=seed, stratify=True)
    if name == "order":
        return Split.order(valid=valid, test=test)
    if name == "time":
        return Split.time(column, valid=valid, test=test)
    return Split.group(column, valid=valid, test=test, seed=seed)
