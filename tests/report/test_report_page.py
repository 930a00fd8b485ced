"""The report as text: complete, escaped, well formed, written atomically, and tolerant of missing parts."""

import os
import re
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
from report_data import EVIL, LONG, hostile, metrics, ordinary, plain, predictions

from graphrec.errors import RunError
from graphrec.report import ReportData, write_report
from graphrec.report.page import render_report
from graphrec.report.view import headline, key_figures, remarks, top_share

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Elements, ids, links and visible text of a page; fails on tags that do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes, self.words = [], [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html():
    return render_report(ordinary())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_it_says_what_was_trained_and_how_good_it_is(page):
    data = ordinary()
    auc = data.metrics["test"]["auc"]
    assert "Predicting click with fcn" in page.text
    assert "fcn learned to predict click from 12 fields of 16,000 rows of clicks.parquet." in page.text
    assert f"above a negative one {100 * auc:.1f} times in 100" in page.text
    for value in (
        f"{auc:.4f}",
        "Column leak gives the label away.",
        "graphrec fit clicks.parquet",
        "0123abcd",
    ):
        assert value in page.text, value


def test_every_section_and_figure_is_there(page):
    for title in (
        "How good it is", "How it learned", "What it uses", "The data", "How to repeat it", "ROC curve",
        "Precision and recall", "Calibration", "Scores by outcome", "Most important fields",
        "Field interactions",
    ):  # fmt: skip
        assert title in page.text, title
    assert page.tags.count("svg") == 9
    labelled = [value for tag, key, value in page.attributes if tag == "svg" and key == "aria-label"]
    assert len(labelled) == 9
    assert all(len(text) > 15 for text in labelled)


def test_it_needs_nothing_from_outside(page, html):
    assert "script" not in page.tags
    assert not {"img", "iframe", "object", "embed", "video"} & set(page.tags)
    sources = [
        v for _, k, v in page.attributes if k in ("src", "href", "xlink:href", "action", "data", "poster")
    ]
    outside = [s for s in sources if not s.startswith(("#", "data:"))]
    assert outside == ["https://arxiv.org/abs/2407.13349"]
    assert ("a", "href", "https://arxiv.org/abs/2407.13349") in page.attributes
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_ids_are_unique_and_contents_lead_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = {v[1:] for tag, k, v in page.attributes if tag == "a" and k == "href" and v.startswith("#")}
    assert targets
    assert targets <= set(page.ids)
    assert {v[1:] for _, k, v in page.attributes if k == "xlink:href" and v.startswith("#")} <= set(page.ids)


@pytest.fixture(scope="module")
def hostile_html():
    return render_report(hostile())


def plots_of(page):
    return [value for _, key, value in page.attributes if key == "aria-label"]


def test_names_from_the_data_cannot_become_markup(hostile_html):
    page = Page(hostile_html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert EVIL in page.text
    assert not [a for a in page.attributes if a[1].startswith("on") or "javascript:" in str(a[2]).lower()]
    assert not re.search("[\x00-\x08\u202e\ud800-\udfff]", hostile_html)
    assert "$a$ & 'b' \"c\"" in page.text
    assert "价格 täx" in page.text


def test_several_labels_have_their_own_figures_and_metrics(hostile_html):
    page = Page(hostile_html)
    assert plots_of(page).count("ROC curve") == 2
    assert "Mean over the labels" in page.text
    assert "(mean over the labels)" in page.text


def test_a_large_interaction_matrix_keeps_the_strongest_fields(hostile_html):
    page = Page(hostile_html)
    assert "The 60 fields with the strongest pairs are shown; 140 are left out." in page.text


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {}, "y": None, "p": None},
        {"y": None, "p": None},
        {"interactions": (np.zeros((1, 1)), ["only"])},
        {"interactions": (np.full((2, 2), np.nan), ["a", "b"])},
        {"importance": (["a", "b"], [float("nan"), 0.0])},
        {"fields": [], "rows": {}},
        {"metrics": {"extra": {"auc": 0.5}}},
        {"weights": np.linspace(0.1, 2, 2000)},
        {"y": np.zeros(2000), "p": np.full(2000, 0.1)},
        {"y": np.ones(2000), "p": np.full(2000, 1.0)},
        {"y": np.full(2000, np.nan), "p": np.full(2000, 0.5)},
        {"y": np.array([0.0, 1.0]), "p": np.array([0.5, 0.5])},
        {"y": np.zeros(0), "p": np.zeros(0)},
        {"history": [{"epoch": 1, "train_loss": None, "valid_auc": None}] * 2},
        {"history": [{"epoch": e, "train_loss": 0.5, "lr": 1e-5 / e} for e in (1, 1.5, 2)]},
    ],
)  # fmt: skip
def test_missing_and_degenerate_parts_are_left_out(changes):
    Page(render_report(plain(**changes)))


def test_almost_nothing_is_still_a_page():
    page = Page(render_report(ReportData(model="lr")))
    assert "Nothing was evaluated" in page.text
    assert "The data" not in page.text


def test_one_class_says_that_ranking_is_not_known():
    y, p = np.zeros((50, 1)), np.full((50, 1), 0.1)
    page = Page(render_report(plain(metrics={"test": metrics(y, p, ["click"])}, y=y, p=p)))
    assert "How well it ranks is not known" in page.text
    assert "ROC curve" not in plots_of(page)
    assert "Calibration" in plots_of(page)
    assert "Fewer than 50 rows of one outcome of click" in page.text


def test_overfitting_and_training_rows_are_remarked():
    def parts(**aucs):
        return ordinary(metrics={k: {"auc": v, "rows": 1000, "base_rate": 0.3} for k, v in aucs.items()})

    assert "over-fitting" in next(remarks(parts(train=0.99, test=0.8)))
    assert not list(remarks(parts(train=0.82, test=0.8)))
    assert "learned from" in next(remarks(parts(train=0.9)))
    assert "the rows that it learned from" in headline(parts(train=0.9))


def test_key_figures_name_what_guessing_gives():
    data = ordinary()
    figures = {f.title: f for f in key_figures(data, "click", data.scores("click"))}
    m = data.metrics["test"]
    assert list(figures) == ["AUC", "Log loss", "PR-AUC", "Lift of the top tenth", "Predicted / observed"]
    assert figures["PR-AUC"].baseline == f"guessing: {m['base_rate']:.4f}"
    rate = m["base_rate"]
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert figures["Log loss"].baseline == f"base rate: {entropy:.4f}"
    assert "95% interval" in figures["AUC"].meaning


def test_top_share_of_perfect_constant_and_tied_scores():
    y = (np.arange(1000) >= 950).astype(float)
    assert top_share(ordinary(y=y, p=y).scores("click")) == pytest.approx(1.0)
    assert top_share(ordinary(y=y, p=np.full(1000, 0.2)).scores("click")) == pytest.approx(0.1)
    assert top_share(ordinary(y=0 * y, p=y).scores("click")) is None


def test_the_same_data_give_the_same_bytes(html):
    assert render_report(ordinary()) == html


def test_a_million_predictions_stay_a_small_page():
    y, p = predictions(rows=1_000_000)
    assert len(render_report(plain(y=y, p=p))) < 200_000


def test_reports_can_be_made_in_threads():
    pages, wanted = [], render_report(plain())
    threads = [threading.Thread(target=lambda: pages.append(render_report(plain()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pages == [wanted] * 3


def test_it_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("before")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunError, match=r"report\.html: the report cannot be written \(No space left"):
        write_report(target, ReportData(model="lr"))
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.html"]


def test_it_is_readable_by_others_and_overwrites(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("before")
    assert write_report(target, ReportData(model="lr")) == target
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert target.stat().st_mode == plain.stat().st_mode


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        write_report(tmp_path / "none" / "report.html", ReportData(model="lr"))


def test_long_names_are_whole_in_the_table_of_fields(hostile_html):
    assert LONG in Page(hostile_html).text


def test_paths_are_short_in_the_headline_and_whole_at_the_origin():
    page = Page(render_report(ReportData(model="lr", data="logs/2024/clicks.parquet")))
    assert "lr learned to predict label of clicks.parquet." in page.text
    assert "logs/2024/clicks.parquet" in page.text
    assert "of logs/*.parquet." in headline(ReportData(model="lr", data="logs/*.parquet"))


def test_validation_rows_that_chose_the_epoch_are_said_to_be():
    history = [{"epoch": e, "train_loss": 0.5, "valid_auc": 0.7} for e in (1, 2)]
    valid = {"valid": ordinary().metrics["valid"]}
    assert "which also chose the best epoch" in render_report(plain(metrics=valid, history=history))
    assert "which also chose the best epoch" not in render_report(plain(history=history))


def test_weights_count_as_the_equal_rows_that_tell_as_much():
    y, p = predictions(2000)
    weights = np.where(np.arange(2000) % 2, 190_000.0, 0.0)
    weighted, half = ordinary(y=y, p=p, weights=weights), ordinary(y=y[1::2], p=p[1::2])
    assert weighted.scores("click").total == pytest.approx(1000)
    for name, values in half.scores("click").bins().items():
        np.testing.assert_allclose(weighted.scores("click").bins()[name], values, err_msg=name)
    assert "effective rows" in Page(render_report(weighted)).text
    assert "effective rows" not in Page(render_report(half)).text
