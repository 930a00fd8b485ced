"""The figure that pictures are drawn on: its texts can be read, whatever script they are written in."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from matplotlib import figure as plain
from matplotlib.axis import Axis
from matplotlib.cbook import is_math_text
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from .fonts import covering, lacking
from .names import elide

_BROWSER = ContextVar("browser", default=False)
_LONGEST = 28
_told: list[str] = []
"""What was said of characters that no font has: only the first picture says it."""


class Figure(plain.Figure):
    """A figure that draws every character that some installed font has.

    A text's own font is used wherever it has the glyphs; the other characters are taken from fonts that have
    them. What no installed font has is drawn as its code, ``[5E74 9F84]``, and said once. The figure itself
    stays as it was: fonts and codes last as long as the drawing.
    """

    def draw(self, renderer: Any) -> None:
        """As of every artist."""
        with _readable(self):
            super().draw(renderer)

    def get_tightbbox(self, renderer: Any = None, **options: Any) -> Bbox:
        """As of every artist; a tight picture is cut by it."""
        with _readable(self):
            return super().get_tightbbox(renderer, **options)


@contextmanager
def left_to_browser() -> Iterator[None]:
    """Texts that are drawn inside are written as characters, of which a browser has the glyphs: no codes."""
    before = _BROWSER.set(True)
    try:
        yield
    finally:
        _BROWSER.reset(before)


@contextmanager
def _readable(figure: plain.Figure) -> Iterator[None]:
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    for axis in axes:
        axis.get_majorticklabels()  # writes them; they are else written while they are drawn
    strange = [
        one
        for one in figure.findobj(Text)
        if not (text := one.get_text()).isascii() and not is_math_text(text)
    ]
    lacks = {one: found for one in strange if (found := lacking(one.get_text(), one.get_fontproperties()))}
    if not lacks:
        yield
        return
    families = covering(frozenset[str]().union(*lacks.values()))
    with ExitStack() as undo:
        unknown = set[str]()
        for one in lacks:
            undo.callback(one.set_fontfamily, one.get_fontfamily())
            one.set_fontfamily([*one.get_fontfamily(), *families])
            unknown |= lacking(one.get_text(), one.get_fontproperties())
        if unknown and _BROWSER.get():
            undo.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
        elif unknown:
            _tell(unknown)
            for one in lacks:
                undo.callback(one.set_text, one.get_text())
                one.set_text(spelled(one.get_text(), unknown))
            for axis in axes:
                if any(one in lacks for one in axis.get_majorticklabels()):
                    undo.callback(_spell_ticks(axis, unknown))
        yield


def _spell_ticks(axis: Axis, unknown: set[str]) -> Callable[[], None]:
    """Let an axis write its labels with codes; what it returns ends that."""
    formatter: Any = axis.get_major_formatter()
    write = formatter.format_ticks
    formatter.format_ticks = lambda values: [spelled(text, unknown) for text in write(values)]
    return lambda: delattr(formatter, "format_ticks")


def spelled(text: str, unknown: set[str]) -> str:
    """``text`` with these characters as codes, not longer than before or 28 letters a line.

    Of characters that only say how others are joined nothing is left.
    """
    pattern = re.compile(f"[{re.escape(''.join(sorted(unknown)))}]+")
    lines = [(line, line.replace(r"\$", "$")) for line in text.split("\n")]
    return "\n".join(
        elide(pattern.sub(_codes, plain), max(_LONGEST, len(plain))).replace("$", r"\$")
        if pattern.search(line)
        else line
        for line, plain in lines
    )


def _codes(run: re.Match[str]) -> str:
    seen = [f"{ord(c):04X}" for c in run[0] if unicodedata.category(c) != "Cf"]
    return f"[{' '.join(seen)}]" if seen else ""


def _tell(unknown: set[str]) -> None:
    kinds = {c: unicodedata.category(c) for c in unknown}
    named = sorted((c for c in unknown if kinds[c] != "Cf"), key=lambda c: (kinds[c][0] == "M", c))
    if _told or not named:
        return
    shown = ", ".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in named[:3])
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    _told.append(
        f"no installed font has {shown}{more}: pictures show codes instead, as [{ord(named[0]):04X}]; "
        "install a font of their script"
    )
    warnings.warn(_told[0], UserWarning, stacklevel=2)
