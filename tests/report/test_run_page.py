"""The page of a recipe's run: what it says, and that names are only ever text."""

from __future__ import annotations

import numpy as np
import pytest
from report_data import EVIL, recipe_run

from graphrec.report import write_run_page
from graphrec.report.run_page import headline, metric_title, repetition_table, result_table, spread_text
from graphrec.report.run_plots import plot_curves, plot_spread


def test_the_best_comes_first_and_is_named() -> None:
    page = recipe_run()
    assert [row[0] for row in result_table(page).rows] == ["gin", EVIL]
    assert headline(page).startswith("gin has the best test accuracy of 2: 0.7")
    worst_first = recipe_run(metric="test/logloss")
    assert [row[0] for row in result_table(worst_first).rows] == [EVIL, "gin"], "less of a loss is better"
    alone = {"gin": {"test/accuracy": {"mean": 0.5, "std": None, "n": 1}}}
    assert headline(recipe_run(summary=alone)) == "gin reaches a test accuracy of 0.5000, once."
    none = {"gin": {"test/accuracy": {"mean": None, "std": None, "n": 0}}}
    assert headline(recipe_run(summary=none)) == "No repetition has a Test accuracy."


def test_the_table_has_the_paper_beside_ours() -> None:
    table = result_table(recipe_run())
    assert table.columns[:3] == ["variant", "Test accuracy ↑", "published"]
    assert table.rows[0][2] == "0.900"
    assert table.rows[1][2] == "–"
    assert table.rows[0][-2:] == ["201,728", "1.2"]


def test_metrics_have_titles_where_they_are_known() -> None:
    assert metric_title("test/f1_macro") == "Test macro F1"
    assert metric_title("valid/auc") == "Validation AUC"
    assert metric_title("inductive/accuracy") == "Inductive accuracy"
    assert metric_title("test/my_score") == "Test my score"
    assert metric_title("accuracy") == "Accuracy"
    assert spread_text({"mean": 0.5, "std": 0.1, "n": 3}) == "0.5000 ± 0.1000"
    assert spread_text(None) == "–"


def test_names_are_text_and_every_row_is_there(tmp_path) -> None:
    page = recipe_run()
    html = write_run_page(tmp_path / "run.html", page).read_text()
    assert EVIL not in html
    assert "&lt;script&gt;" in html
    assert len(repetition_table(page).rows) == 6
    assert "<script" not in html


def test_only_the_address_is_a_link(tmp_path) -> None:
    """As the shipped recipes say where their data are: an address, and what of it."""
    data = {"origin": "https://example.org/data?a=1&b=2, as <folder>/set.arff", "copy": "javascript:alert(1)"}
    page = recipe_run(data=data, paper="javascript:alert(1) https://example.org")
    html = write_run_page(tmp_path / "run.html", page).read_text()
    address = "https://example.org/data?a=1&amp;b=2"
    assert f'<a href="{address}" rel="noreferrer">{address}</a>, as &lt;folder&gt;/set.arff' in html
    assert 'href="javascript' not in html


def test_curves_end_where_half_of_them_do() -> None:
    long, short = np.arange(1, 11), np.arange(1, 4)
    figure = plot_curves({"a": [(long, long * 1.0), (short, short * 1.0), (short, short * 3.0)]}, "loss")
    mean = figure.axes[0].lines[-1]
    assert mean.get_xdata().tolist() == [1, 2, 3]
    assert mean.get_ydata() == pytest.approx([5 / 3, 10 / 3, 5])


def test_the_spread_shows_mean_and_deviation() -> None:
    figure = plot_spread({"a": [0.1, 0.3], "b": [0.5]}, "x")
    bar, mean = figure.axes[0].lines
    assert bar.get_xdata() == pytest.approx([0.2 - 0.1 * 2**0.5, 0.2 + 0.1 * 2**0.5])
    assert mean.get_xdata() == pytest.approx([0.2, 0.2])
