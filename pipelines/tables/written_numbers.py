"""Numbers as people write them: ``3,14``, ``1,234.50``, ``$5`` or ``12%`` are text, and told by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .schema import Column, Role
from .values import MISSING_TEXT

if TYPE_CHECKING:
    import polars as pl

    from .sources import Table

_APART = "[ '\u00a0\u202f]"  # blanks, among them those that do not break, and the Swiss apostrophe
_WRITTEN = (
    r"^[$€£¥]?[+-]?[$€£¥]?\s?(?:\d+(?:\.\d+)?"
    rf"|(?:\d+|\d{{1,3}}(?:(?:\.|{_APART})\d{{3}})+),\d+"
    rf"|\d{{1,3}}(?:(?:,|{_APART})\d{{3}})+(?:\.\d+)?)\s?[%€$£¥]?$"
)


def present_text(values: pl.Series) -> pl.Series:
    """Text that does not mean a missing number, without the spaces around it."""
    text = values.drop_nulls().str.strip_chars()
    return text.filter(~text.str.to_lowercase().is_in(MISSING_TEXT))


def warn_of_written_numbers(table: Table, sample: pl.DataFrame, guessed: Sequence[Column]) -> None:
    """Warn of columns that became categories only because of how their numbers are written.

    Args:
        table: Names the rows.
        sample: Some of them.
        guessed: Columns whose role nobody gave.
    """
    import polars as pl

    for column in guessed:
        if column.role not in (Role.CATEGORICAL, Role.MULTI) or table.columns[column.name] != pl.String:
            continue
        present = present_text(sample[column.name])
        odd = present.filter(~present.str.contains(r"^[+-]?\d+$"))
        if len(odd) and present.str.contains(_WRITTEN).all():
            warnings.warn(
                f"{table.name}: column {column.name!r} holds numbers written like {odd[0]!r}, which is text, "
                f"and is taken for {column.role}; write them like 3.14 to have numbers, or give the column "
                "that role yourself",
                UserWarning,
                stacklevel=4,
            )
