"""Which installed fonts have the characters of a text that its own font lacks.

The fonts' character maps are asked, so no list of names has to be kept. matplotlib is asked which fonts there
are; nothing is opened for a text that its own font can draw.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontProperties

_UNASSIGNED = 0x378
"""A code that is no character: a font with a glyph for it has placeholders for everything."""
_NO_LETTER = {"Cc", "Cn", "Co", "Cs"}


def lacking(text: str, wanted: FontProperties) -> set[str]:
    """Characters of ``text`` for which no font of the families that are wanted has a glyph."""
    left = {c for c in text if not c.isascii()}
    for family in wanted.get_family() if left else ():
        one = wanted.copy()
        one.set_family(family)
        try:
            font = font_manager.get_font(font_manager.findfont(one, fallback_to_default=False))
        except ValueError:  # not installed, which matplotlib tells
            continue
        left = {c for c in left if not font.get_char_index(ord(c))}
    return left


@lru_cache(maxsize=256)
def covering(characters: frozenset[str]) -> tuple[str, ...]:
    """Font families that have these characters, those with most of them first; of what none has, nothing.

    Few, as each is the one that has most of what is left; of equals the first in the alphabet. Characters of
    private use are something else in every font and are not looked for.
    """
    left = {c for c in characters if unicodedata.category(c) not in _NO_LETTER}
    has = {}
    for name, entry in _regular().items():
        if found := _glyphs(entry, left):
            has[name] = found
    chosen = list[str]()
    while left and has:
        best = min(has, key=lambda name: (-len(has[name] & left), name))
        if not has[best] & left:
            break
        chosen.append(best)
        left -= has.pop(best)
    return tuple(chosen)


def _regular() -> dict[str, FontEntry]:
    """The plainest font of every installed family."""
    found: dict[str, FontEntry] = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=_fancy):
        found.setdefault(entry.name, entry)
    return found


def _fancy(entry: FontEntry) -> tuple[Any, ...]:
    weight = entry.weight
    if isinstance(weight, str):
        weight = font_manager.weight_dict.get(weight, 400)
    return entry.style != "normal", abs(weight - 400), entry.name, entry.fname


def _glyphs(entry: FontEntry, characters: set[str]) -> set[str]:
    """Which of the characters a font has; none of a font that cannot be read or drawn at any size."""
    path: Any = entry.fname
    if index := getattr(entry, "index", 0):  # a later font of a collection, which matplotlib 3.11 reads
        path = font_manager.FontPath(path, index)
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return set()
    if not font.scalable or font.get_char_index(_UNASSIGNED):
        return set()
    return {c for c in characters if font.get_char_index(ord(c))}
