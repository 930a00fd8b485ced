"""Names from users' data as texts of a plot."""

from __future__ import annotations

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""Not seen themselves, but part of how Persian and Indian words are written."""


def elide(text: str, length: int) -> str:
    """``text`` with its middle left out where it is longer than ``length``."""
    return text if len(text) <= length else text[: length - length // 3 - 1] + "…" + text[-(length // 3) :]


def one_line(name: object) -> str:
    """A name without line breaks and what else cannot be seen, a blank for each; mere blanks in quotes."""
    plain = "".join(c if c.isprintable() or c in _JOINERS else " " for c in str(name))
    return plain if plain.strip() else f"'{plain}'"


def short_name(name: object, length: int = 28) -> str:
    """`one_line` of at most ``length`` letters, its middle left out; safe as a plot text.

    A dollar sign is escaped: matplotlib reads what stands between two of them as a formula.
    """
    return elide(one_line(name), length).replace("$", r"\$")


def legend_name(name: object, length: int = 28) -> str:
    """`short_name` for a legend, from which matplotlib leaves out what begins with an underscore."""
    short = short_name(name, length)
    return f" {short}" if short.startswith("_") else short
