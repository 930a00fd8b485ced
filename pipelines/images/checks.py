"""Whether every picture can be read, before any training: by header and end, or by decoding all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from graphrec.errors import ConfigError, DataError

from .decoding import inspect, reason
from .stores import BytesStore, Encoded

Check = Literal["header", "full", "none"]
OnCorrupt = Literal["raise", "skip"]
Facts = dict[int, tuple[int, int, str]]
_SHOWN = 10


def check_images(
    store: Encoded, name: str, check: Check = "header", on_corrupt: OnCorrupt = "raise"
) -> tuple[Facts, dict[int, str]]:
    """Look at every picture.

    Args:
        store: The pictures, encoded.
        name: Of the set.
        check: "header" reads the header and the end of each file, and decodes those that end as no complete
            file ends; "full" decodes all; "none" looks at nothing.
        on_corrupt: "raise", or "skip" to have the broken ones returned.

    Returns:
        Width, height and mode of each readable picture; what is wrong with each of the others.

    Raises:
        ConfigError: An argument has no such value.
        DataError: Some are broken and are not to be skipped, or all are.
    """
    for argument, value, choices in (
        ("check", check, ("header", "full", "none")),
        ("on_corrupt", on_corrupt, ("raise", "skip")),
    ):
        if value not in choices:
            raise ConfigError(f"{argument}={value!r}: must be one of {', '.join(choices)}")
    if check == "none":
        return {}, {}
    facts: Facts = {}
    broken: dict[int, str] = {}
    for row, found in enumerate(_looks(store, check == "full")):
        if isinstance(found, str):
            broken[row] = found
        else:
            facts[row] = found
    if broken and (on_corrupt == "raise" or not facts):
        skip = "" if not facts else ", or leave them out by on_corrupt='skip' (--skip-broken)"
        remedy = f"repair or remove them{skip}"
        what = f"{len(broken)} of {len(store)} images cannot be read"
        raise DataError(f"{name}: {what}: {list_broken(store, broken)}; {remedy}")
    return facts, broken


def _looks(store: Encoded, full: bool) -> Iterator[tuple[int, int, str] | str]:
    """What each picture shows; threads wait for files and decode, but are no help in reading headers."""
    if not full and isinstance(store, BytesStore):
        yield from (_look(store, row, full) for row in range(len(store)))
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda row: _look(store, row, full), range(len(store)))


def _look(store: Encoded, row: int, full: bool) -> tuple[int, int, str] | str:
    try:
        with store.file(row) as file:
            try:
                return inspect(file, full)
            except Exception as error:  # decoders raise whatever they like on broken bytes
                return reason(error, file)
    except OSError as error:
        return reason(error)


def list_broken(store: Encoded, broken: dict[int, str], shown: int = _SHOWN) -> str:
    """The first few by name with the reason, and how many more."""
    parts: Sequence[str] = [f"{store.name(row)} ({why})" for row, why in list(broken.items())[:shown]]
    more = f" and {len(broken) - shown} more" if len(broken) > shown else ""
    return ", ".join(parts) + more
