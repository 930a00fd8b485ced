"""A schema as YAML that people edit: one line a column, only the options that differ from the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from graphrec.errors import SchemaError

from ..yaml_keys import repeated_key
from .schema import PARTS, Column, Role, TableSchema, explain

_HEADER = f"""\
# What each column is for. Edit the roles and options, then fit with this file.
# roles: {", ".join(Role)}
# of categorical, sequence and multi: min_count, max_size, hash_buckets, quotient_remainder, shares
# also of sequence and multi: max_length, separator (multi: pooling mean, sum, max)
# of numeric: transform piecewise or quantile (with bins), standard, log, minmax, none
# of timestamp: parts {", ".join(PARTS)}; unit s, ms, us, ns when it is a number
# of label: classes [negative, positive]
"""


def dump_schema(schema: TableSchema) -> str:
    """The YAML text of a schema."""
    lines = [_HEADER.rstrip("\n")]
    for key, value in (("group", schema.group), ("time", schema.time)):
        lines.append(f"{key}: {_flow(value)}")
    lines.append("columns:")
    for column in schema.columns:
        entry = {"role": column.role.value, "dtype": column.dtype, **column.options()}
        lines.append(f"  {_key(column.name)}: {_flow(entry)}")
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    """A name as a key, on one line even if it holds a line break."""
    if name.isprintable():
        return _flow(name)
    return str(yaml.safe_dump(name, default_style='"', width=10**9, allow_unicode=True)).removesuffix("\n")


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def load_schema(path: Path) -> TableSchema:
    """Read `dump_schema`'s text; every complaint names the file."""
    try:
        text = path.read_text(encoding="utf-8")
        data, repeated = yaml.safe_load(text), repeated_key(text)
    except OSError as error:
        raise SchemaError(f"{path}: cannot be opened ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: not YAML ({' '.join(str(error).split())[:160]})") from error
    if not isinstance(data, dict) or not isinstance(data.get("columns"), dict):
        raise SchemaError(f"{path}: not a schema; it needs a mapping 'columns' from names to roles")
    if repeated is not None:
        raise SchemaError(f"{path}: {repeated}; keep one")
    unknown = sorted(set(data) - {"columns", "group", "time"})
    if unknown:
        raise SchemaError(f"{path}: unknown key {unknown[0]!r}; a schema has columns, group and time")
    columns = [_column(path, name, entry) for name, entry in data["columns"].items()]
    try:
        return TableSchema(columns=columns, group=data.get("group"), time=data.get("time"))
    except ValidationError as error:
        raise SchemaError(f"{path}: {explain(error)}") from error


def _column(path: Path, name: Any, entry: Any) -> Column:
    entry = {"role": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        raise SchemaError(
            f"{path}: column {str(name)!r}: expected a role or {{role: ..., ...}}, found {entry!r}"
        )
    try:
        return Column(name=str(name), **entry)
    except ValidationError as error:
        raise SchemaError(f"{path}: column {str(name)!r}: {explain(error)}") from error
    except TypeError as error:
        raise SchemaError(f"{path}: column {str(name)!r}: {error}") from error
