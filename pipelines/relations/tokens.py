"""Words of running text, with where they stand."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokenise(text: str) -> tuple[list[str], list[int], list[int]]:
    """Runs of letters and digits, and single other signs; nothing but white space is lost.

    Returns:
        The tokens, and the characters at which each begins and ends (exclusive).
    """
    found = list(_TOKEN.finditer(text))
    return [m.group() for m in found], [m.start() for m in found], [m.end() for m in found]
