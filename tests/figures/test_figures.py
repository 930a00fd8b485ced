"""Figures: which fonts a text is drawn with, what becomes of characters that none has, and names as texts.

Only the fonts that matplotlib ships are looked at, so it does not matter which others a machine has.
"""

import io
import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure as PlainFigure

from graphrec.figures import figure as figures
from graphrec.figures import fonts
from graphrec.figures.figure import Figure
from graphrec.figures.names import legend_name, short_name
from graphrec.report.plots import plot_history, plot_importance
from graphrec.report.run_plots import plot_curves
from graphrec.report.svg import svg_text

HOOK, QUAD = "\N{LATIN SMALL LETTER D WITH PALATAL HOOK}", "\N{APL FUNCTIONAL SYMBOL QUAD EQUAL}"
"""Of the shipped fonts only STIXGeneral has the one and only DejaVu Sans Mono the other."""
AGE, YEAR = "\u5e74\u9f84", "\u5e74"


@pytest.fixture(autouse=True)
def shipped(monkeypatch):
    """Only matplotlib's own fonts are installed, and nothing was said yet."""
    folder = Path(matplotlib.get_data_path())
    found = [one for one in font_manager.fontManager.ttflist if folder in Path(one.fname).parents]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", found)
    monkeypatch.setattr(figures, "_told", [])
    fonts.covering.cache_clear()
    yield found
    fonts.covering.cache_clear()


def png(figure, **how):
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=60, metadata={"Software": None}, **how)
    return out.getvalue()


def drawn(text, kind=Figure, **options):
    figure = kind(figsize=(4, 1))
    figure.text(0.1, 0.4, text, **options)
    return png(figure)


def test_characters_come_from_the_fonts_that_have_them():
    families = ["sans-serif", "DejaVu Sans Mono", "STIXGeneral"]
    assert drawn(f"ab {HOOK}{QUAD}") == drawn(f"ab {HOOK}{QUAD}", PlainFigure, family=families)


def test_names_on_an_axis_come_from_the_fonts_that_have_them():
    def picture(kind, **options):
        figure = kind(figsize=(3, 2), layout="constrained")
        figure.subplots().set_yticks([0, 1], [f"ab {HOOK}", "cd"], **options)
        return png(figure, bbox_inches="tight")

    assert picture(Figure) == picture(PlainFigure, family=["sans-serif", "STIXGeneral"])


def test_few_fonts_are_taken_and_the_same_ones_each_time(shipped):
    assert fonts.covering(frozenset(HOOK)) == ("STIXGeneral",)
    found = fonts.covering(frozenset(HOOK + QUAD))
    assert sorted(found) == ["DejaVu Sans Mono", "STIXGeneral"]
    fonts.covering.cache_clear()
    shipped.reverse()
    assert fonts.covering(frozenset(HOOK + QUAD)) == found


def test_placeholders_private_and_broken_fonts_are_no_glyphs(shipped, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    broken = font_manager.FontEntry(fname=str(tmp_path / "broken.ttf"), name="Aaa", weight=400)
    shipped.append(broken)
    # matplotlib 3.11 ships a font with a placeholder for every code, and STIX has letters of private use.
    assert fonts.covering(frozenset(AGE + "\ue000" + HOOK)) == ("STIXGeneral",)


@pytest.mark.parametrize("text", ["plain", "caf\xe9 \u2212 \u0394", r"$\mathdefault{10^{-2}}$"])
def test_no_font_is_opened_for_what_the_own_font_has(text, monkeypatch):
    monkeypatch.setattr(figures, "covering", None)
    assert drawn(text) == drawn(text, PlainFigure)


def test_what_no_font_has_is_drawn_as_codes_and_said_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert drawn(f"x {AGE}") == drawn("x [5E74 9F84]", PlainFigure)
        assert drawn(YEAR) == drawn("[5E74]", PlainFigure)
    assert [str(one.message) for one in said] == [
        f"no installed font has {AGE[0]}, {AGE[1]}: pictures show codes instead, as [5E74]; "
        "install a font of their script"
    ]


def test_names_on_an_axis_are_drawn_as_codes_and_kept():
    figure = plot_importance([f"{AGE}$", f"{HOOK}{YEAR}", "c"], [3.0, 2.0, 1.0])
    axis = figure.axes[0].yaxis
    before = [(one.get_text(), one.get_fontfamily()) for one in axis.get_majorticklabels()]
    coded = plot_importance(["[5E74 9F84]$", f"{HOOK}[5E74]", "c"], [3.0, 2.0, 1.0])
    with pytest.warns(UserWarning, match="no installed font"):
        picture = png(figure)
    assert picture == png(coded)
    assert [(one.get_text(), one.get_fontfamily()) for one in axis.get_majorticklabels()] == before


def test_a_page_keeps_the_characters_and_says_nothing():
    text = svg_text(plot_importance([AGE, "b"], [2.0, 1.0]), "one")
    assert AGE in text
    assert "5E74" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a {YEAR} b", "a [5E74] b"),
        (f"{YEAR}\na plain line, longer than that", "[5E74]\na plain line, longer than that"),
        (YEAR * 20, "[5E74 5E74 5E74 5E…E74 5E74]"),
        (rf"\${YEAR}", r"\$[5E74]"),
        ("a\u200db", "ab"),
    ],
)
def test_codes_are_short_and_keep_the_rest(text, shown):
    assert figures.spelled(text, {YEAR, "\u200d"}) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a$b$", r"a\$b\$"),
        ("line\nbreak\x00", "line break "),
        ("x" * 40, "x" * 18 + "…" + "x" * 9),
        ("\u06cc\u200c\u06a9", "\u06cc\u200c\u06a9"),
    ],
)
def test_names_are_made_safe(name, shown):
    assert short_name(name) == shown


def test_a_legend_has_names_that_begin_with_an_underscore():
    assert legend_name("_a") == " _a"
    line = [([1, 2], [0.1, 0.2])]
    for figure in (
        plot_history([1, 2], {"_a": [0.1, 0.2], "b": [0.2, 0.3]}, "AUC"),
        plot_curves({"_a": line, "b": line}, "AUC"),
    ):
        assert [one.get_text() for one in figure.axes[0].get_legend().texts] == [" _a", "b"]
