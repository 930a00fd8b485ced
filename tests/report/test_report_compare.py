"""The comparison page."""

import pytest
from report_data import COMPARED, EVIL
from test_report_page import Page

from graphrec.report import write_comparison
from graphrec.report.compare import cells, sort_rows, summary


@pytest.fixture
def page(tmp_path):
    path = write_comparison(
        tmp_path / "compare.html", COMPARED, data="clicks.parquet", part="test", command="graphrec compare"
    )
    return Page(path.read_text(encoding="utf-8"))


def test_it_orders_marks_and_explains(page):
    assert "fcn is the best of 3 by AUC: 0.7800. Next is lr, 0.0700 behind." in page.text
    assert "The quickest to fit was lr (2 seconds)." in page.text
    for text in (
        "201,728",
        "0.3700 ✓",
        "Normalised entropy",
        "Measured on the test rows",
        "graphrec compare",
    ):
        assert text in page.text, text
    assert page.text.index("201,728") < page.text.index("1,042")


def test_failed_models_are_named_with_the_reason(page):
    assert f"needs a sequence {EVIL}" in page.text
    assert "script" not in page.tags


def test_undefined_values_come_last_and_are_a_dash():
    assert [r["model"] for r in sort_rows(COMPARED[:3], "auc")] == ["fcn", "lr", EVIL]
    assert [r["model"] for r in sort_rows(COMPARED[:3], "logloss")] == ["fcn", "lr", EVIL]
    assert cells("auc", [None, 0.75])[0].text == "–"


def test_bars_begin_at_guessing():
    auc = cells("auc", [0.5, 0.75, 1.0, 0.4])
    assert [c.length for c in auc] == [0, 0.5, 1, 0]
    assert [c.best for c in auc] == [False, False, True, False]
    assert [c.length for c in cells("logloss", [0.4, 0.2])] == [1, 0.5]
    assert [c.best for c in cells("calibration", [0.7, 1.1])] == [False, True]


def test_no_mark_where_there_is_nothing_to_choose():
    assert not any(c.best for c in cells("auc", [0.7]))
    assert not any(c.best for c in cells("auc", [0.7, 0.7]))
    assert not any(c.best for c in cells("seconds", [1.0, 2.0]))


def test_nothing_to_compare(tmp_path):
    assert summary([], "auc") == "No model could be compared."
    for rows in ([], COMPARED[3:], COMPARED[:1]):
        Page(write_comparison(tmp_path / "c.html", rows).read_text(encoding="utf-8"))


def test_columns_of_single_labels_and_the_part_come_from_the_rows(tmp_path):
    rows = [{"model": "mmoe", "auc": 0.7, "click/auc": 0.8, "like/auc": 0.6, "part": "valid", "epochs": 2.5}]
    page = Page(write_comparison(tmp_path / "c.html", rows).read_text(encoding="utf-8"))
    assert "AUC ↑ click AUC ↑ like AUC ↑ Epochs" in page.text
    assert "Measured on the validation rows." in page.text


def test_a_name_leads_to_the_report_of_its_run_if_there_is_one(tmp_path):
    rows = [{"model": "a", "auc": 0.7, "report": "my run #1/report.html"}, {"model": "b", "auc": 0.6}]
    text = write_comparison(tmp_path / "c.html", rows).read_text(encoding="utf-8")
    assert '<th scope="row"><a href="my%20run%20%231/report.html">a</a></th>' in text
    assert '<th scope="row">b</th>' in text
    assert "A name leads to the report" in Page(text).text
    text = write_comparison(tmp_path / "c.html", rows[1:]).read_text(encoding="utf-8")
    assert "A name leads" not in Page(text).text
