"""The figures: what they draw, and that nothing global changes."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from report_data import predictions
from sklearn.metrics import roc_curve

from graphrec.metrics import Scores
from graphrec.report import image_plots, plots
from graphrec.report.run_plots import plot_confusion
from graphrec.report.svg import figure_svg


@pytest.fixture
def scores():
    y, p = predictions()
    return Scores.of(y[:, 0], p[:, 0])


def test_roc_is_the_curve_itself(scores):
    y, p = predictions()
    x, height = plots.plot_roc(scores).axes[0].lines[1].get_data()
    false, true, _ = roc_curve(y[:, 0], p[:, 0])
    assert len(x) <= 242
    assert (x[0], height[0], x[-1], height[-1]) == (0, 0, 1, 1)
    np.testing.assert_allclose(
        np.interp(np.linspace(0, 1, 50), x, height), np.interp(np.linspace(0, 1, 50), false, true), atol=0.02
    )


def test_histogram_is_in_percent_of_each_class(scores):
    figure = plots.plot_histogram(scores, bins=20)
    for stairs in figure.axes[0].patches:
        assert stairs.get_data().values.sum() == pytest.approx(100)


def test_calibration_points_and_intervals(scores):
    figure = plots.plot_calibration(scores)
    x, y = figure.axes[0].lines[1].get_data()
    table = scores.bins(10)
    np.testing.assert_array_equal((x, y), (table["predicted"], table["observed"]))
    low, high = plots.wilson_interval(table["observed"], table["weight"])
    assert (low <= y).all()
    assert (high >= y).all()


def test_wilson_interval_known_value():
    low, high = plots.wilson_interval(np.array([0.5, 0.0]), np.array([100.0, 10.0]))
    np.testing.assert_allclose(low, [0.4038, 0.0], atol=1e-4)
    np.testing.assert_allclose(high, [0.5962, 0.2775], atol=1e-4)


def test_importance_shows_the_largest_first():
    figure = plots.plot_importance(["a", "b", "c"], [0.1, 0.3, -0.2], top=2)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "a"]
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.1]


def test_interactions_leave_the_argument_alone_and_the_diagonal_blank():
    matrix = np.ones((3, 3))
    figure = plots.plot_interactions(matrix, ["a", "b", "c"])
    assert (matrix == 1).all()
    drawn = figure.axes[0].images[0].get_array()
    assert np.ma.getmaskarray(np.ma.masked_invalid(drawn)).diagonal().all()
    assert np.ma.masked_invalid(drawn).count() == 6


def test_interaction_names_keep_apart_up_to_sixty_fields():
    figure = plots.plot_interactions(np.ones((60, 60)), [f"feature_{i}" for i in range(60)])
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    centres = sorted((b.y0 + b.y1) / 2 for b in boxes)
    assert min(np.diff(centres)) > 0.9 * figure.axes[0].get_yticklabels()[0].get_fontsize() * figure.dpi / 72


def test_history_leaves_gaps_and_marks_the_best_epoch():
    axes = plots.plot_history([1, 2, 3], {"valid": [0.1, None, 0.3]}, "AUC", best=3).axes[0]
    assert axes.lines[0].get_xdata() == [3, 3]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [0.1, np.nan, 0.3])


def test_near_points_get_labels_that_keep_apart():
    seconds, values = [10, 10.1, 10.2, 500], [0.8, 0.8001, 0.8002, 0.9]
    figure = plots.plot_tradeoff(["first", "second", "third", "far"], seconds, values, "AUC")
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(t) for t in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_svg_takes_colours_from_the_page_but_texts_from_the_data():
    name = f"{plots.INK} font: 8px x; <b>"
    svg = figure_svg(plots.plot_importance([name], [1.0]), "one", "bars & <b>")
    assert "var(--series-0)" in svg
    assert f"{plots.INK} font: 8px x; &lt;b&gt;" in svg
    assert 'aria-label="bars &amp; &lt;b&gt;"' in svg
    assert svg.replace(name.replace("<b>", "&lt;b&gt;"), "").count(plots.INK) == 0
    assert "font-family" not in svg


def test_nothing_global_changes(scores):
    before = dict(matplotlib.rcParams)
    figure_svg(plots.plot_roc(scores), "roc", "roc")
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_and_jinja_load_only_when_used():
    code = (
        "import sys, graphrec.metrics, graphrec.report, graphrec.report.plots; "
        "print([m for m in ('torch', 'matplotlib', 'jinja2', 'polars') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
    code = (
        "import sys; from graphrec.report import plots; figure = plots.plot_importance(['a'], [1]); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize(
    "names",
    [
        [f"class_{i}" for i in range(300)],
        [f"a rather long class {i}" for i in range(6)],
        ["x" * 200, "line\nbreak"],
        list("abc"),
    ],
)
def test_names_of_a_confusion_keep_apart(names):
    figure = plot_confusion(np.arange(len(names)), np.arange(len(names)), names)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [one.get_window_extent() for one in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    assert ("1 class of 7 is named" in axes.get_xlabel()) == (len(names) == 300)


def test_the_figure_of_precision_stands_clear_of_the_curve():
    rng = np.random.default_rng(0)
    y = (rng.random(500) < 0.95).astype(float)
    scores = Scores.of(y, np.where(y == 1, 0.2, 0.0) + 0.5 * rng.random(500))
    figure = plots.plot_precision_recall(scores)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [Text.get_window_extent(one) for one in axes.texts]
    heights = axes.transData.transform(np.column_stack(axes.lines[1].get_data()))[:, 1]
    assert all(box.y1 < heights.min() for box in boxes)


def test_captions_keep_to_their_lines():
    figure = image_plots.plot_sheet([np.zeros((8, 8, 3), np.uint8)], [("line\nbreak", "as $b$")])
    assert figure.axes[0].texts[0].get_text() == "line break\nas \\$b\\$"
