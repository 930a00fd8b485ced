"""Arrow's types that polars cannot hold: it panics on them, so they are refused before it sees them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from graphrec.errors import SchemaError

_ZONE = re.compile(r"timestamp\[\w+, tz=([^\]]+)\]")


def refuse_arrow_type(kind: Any, column: str, name: str, *, wide: bool = True) -> None:
    """Refuse decimals of 256 bits, and times of a zone without a name, such as +05:30.

    Args:
        kind: The column's Arrow type; any other type passes.
        column: Its name.
        name: The table's.
        wide: Whether the decimals are looked for; polars can open files with them.

    Raises:
        SchemaError: It is one of these.
    """
    text = str(kind)
    if wide and "decimal256" in text:
        raise SchemaError(f"{name}: column {column!r} is {kind}; cast it to decimal128 or float64")
    for zone in _ZONE.findall(text):
        if not _is_known(zone):
            raise SchemaError(
                f"{name}: column {column!r} is {kind}, and polars knows no zone {zone!r}; convert it to UTC, "
                "or to a zone with a name such as Asia/Kolkata"
            )


@cache
def _is_known(zone: str) -> bool:
    import polars as pl
    import pyarrow as pa

    try:
        pl.from_arrow(pa.array([], pa.timestamp("us", zone)))
    except pl.exceptions.PolarsError:
        return False
    return True
