"""Options of a column whose values pydantic's types do not bound; each check returns the value."""

from __future__ import annotations


def known_zone(zone: str | None) -> str | None:
    """The zone of a timestamp.

    Raises:
        ValueError: polars knows no such time zone.
    """
    import polars as pl

    try:
        if zone is not None:
            pl.Series([], dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{zone!r} is no time zone; name one such as UTC or Europe/Berlin") from error
    return zone


def some_remainders(value: bool | int) -> bool | int:
    """Whether there is quotient-remainder compression, or the number of its remainders.

    Raises:
        ValueError: It is negative.
    """
    if value < 0:
        raise ValueError(f"quotient_remainder: {value} is no number of remainders; say true or one from 1 up")
    return value
