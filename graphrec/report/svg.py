"""A matplotlib figure as SVG inside a page, in the page's font and the colours of its light or dark mode."""

from __future__ import annotations

import io
import re
import threading
from typing import TYPE_CHECKING, Any

from . import plots

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_RENDERING = threading.Lock()
"""matplotlib reads the two settings below from a global, so figures are rendered one at a time."""

_COLOURS = {
    plots.INK: "var(--ink)",
    plots.MUTED: "var(--muted)",
    plots.GRID: "var(--grid)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(plots.SERIES)},
}
_COLOUR = re.compile("|".join(_COLOURS))
_DROPPED = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_GROUP_ID = re.compile(r'^<g id="[^"]*"')
_SHORT_FONT = re.compile(r"font: (bold |700 )?[^;\"]*?([\d.]+px) [^;\"]*")
_FAMILY = re.compile(r"font-family: [^;\"]*(; )?")
_LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")
_SIZE = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def figure_svg(figure: Figure, name: str, description: str, fixed: bool = False) -> Markup:
    """The figure as an inline ``<svg>``.

    Args:
        figure: What to draw.
        name: Unique in the page; element ids are made from it, so the same figure gives the same bytes.
        description: Text for a reader who cannot see it.
        fixed: Keep about the natural width, for a figure that scrolls instead of shrinking.
    """
    return inline_svg(svg_text(figure, name), description, fixed)


def inline_svg(text: str, description: str, fixed: bool = False) -> Markup:
    """What `svg_text` made, as part of a page; see `figure_svg`."""
    from markupsafe import Markup, escape

    text = _TAG.sub(lambda m: _clean_tag(m[0]), _DROPPED.sub("", text))
    width, height = map(float, _SIZE.search(text).groups())  # type: ignore[union-attr]
    shape = f"max-width:{width * 1.5:.0f}px"
    if fixed:
        shape = f"min-width:{width * 1.2:.0f}px; max-width:{width * 1.4:.0f}px"
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(description)}" style="{shape}">'
    )
    return Markup(_SIZE.sub(lambda _: opening, text, count=1))


def svg_shape(text: str) -> float:
    """Width over height of an SVG."""
    width, height = map(float, _SIZE.search(text).groups())  # type: ignore[union-attr]
    return width / height


def svg_text(figure: Figure, name: str) -> str:
    """The figure as an SVG file, the same bytes for the same figure; ``name`` as in `figure_svg`."""
    import matplotlib

    from graphrec.figures.figure import left_to_browser

    out = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    with _RENDERING, matplotlib.rc_context(settings), left_to_browser():
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def _clean_tag(tag: str) -> str:
    """One element's tag without fixed fonts, group names and needless digits; texts stay as they are."""
    if "base64" in tag:
        return tag
    tag = _GROUP_ID.sub("<g", tag).replace(" \n", " ").replace("\n", " ")
    tag = _SHORT_FONT.sub(lambda m: f"font-size: {m[2]}" + ("; font-weight: 700" if m[1] else ""), tag)
    tag = _LONG_NUMBER.sub(r"\1", _FAMILY.sub("", tag))
    return _COLOUR.sub(lambda m: _COLOURS[m[0]], tag)
