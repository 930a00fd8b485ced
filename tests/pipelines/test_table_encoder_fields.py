"""Encoding of numbers, lists and times: what becomes of every value that a column can hold."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from encoder_tools import column, fit
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.pipelines.tables import EncodedTable, FieldKind, Split, TableEncoder, TableSchema


def test_digit_strings_in_numeric_columns() -> None:
    frame = pl.DataFrame({"v": list(range(40)), "y": [0, 1] * 20})
    encoder, parts = fit(frame, roles={"v": "numeric"})
    text = frame.select(pl.col("v").cast(pl.String).replace("3", " 3 ").replace("4", "NA"), "y")
    got = column(encoder, encoder.encode(text), "v")
    expected = column(encoder, parts["train"], "v").copy()
    expected[4] = np.nan
    np.testing.assert_array_equal(got, expected)


def test_missing_and_infinite_numbers() -> None:
    frame = pl.DataFrame({"v": [1.0, 2.0, 3.0, None, np.nan, np.inf, -np.inf, 2.0], "y": [0, 1] * 4})
    encoder, parts = fit(frame)
    got = column(encoder, parts["train"], "v")
    assert np.isnan(got).tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert got[5] == got[2]
    assert got[6] == got[0]


@pytest.mark.parametrize("transform", ["standard", "log", "minmax", "none"])
def test_transforms(transform: str) -> None:
    values = np.random.default_rng(0).lognormal(2, 1.5, 500) - 3
    frame = pl.DataFrame({"v": values, "y": [0, 1] * 250})
    encoder, parts = fit(frame, changes={"v": {"transform": transform}})
    got = column(encoder, parts["train"], "v")
    logs = np.sign(values) * np.log1p(np.abs(values))
    expected = {
        "standard": (values - values.mean()) / values.std(),
        "log": (logs - logs.mean()) / logs.std(),
        "minmax": (values - values.min()) / (values.max() - values.min()),
        "none": values,
    }[transform]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(column(encoder, encoder.encode(frame), "v"), got, atol=1e-6)


def test_large_numbers_keep_their_differences() -> None:
    values = 1_700_000_000.0 + np.arange(100)
    encoder, parts = fit(
        pl.DataFrame({"v": values, "y": [0, 1] * 50}), changes={"v": {"transform": "standard"}}
    )
    got = column(encoder, parts["train"], "v")
    np.testing.assert_allclose(got, (values - values.mean()) / values.std(), atol=1e-5)


def test_quantile_buckets() -> None:
    values = np.random.default_rng(0).lognormal(0, 2, 1000)
    frame = pl.DataFrame({"v": np.where(np.arange(1000) < 10, np.nan, values), "y": [0, 1] * 500})
    encoder, parts = fit(frame, changes={"v": {"transform": "quantile", "bins": 10}})
    field = encoder.spec.fields[0]
    assert field.kind is FieldKind.CATEGORICAL
    assert field.size == 12
    ids = column(encoder, parts["train"], "v")
    counts = np.bincount(ids, minlength=12)
    assert counts[0] == 10
    assert counts[1] == 0
    assert np.all(np.abs(counts[2:] - 99) <= 1)
    assert parts["train"].counts()["v"].tolist() == counts.tolist()
    order = np.argsort(values[10:])
    assert np.all(np.diff(ids[10:][order]) >= 0)
    np.testing.assert_array_equal(column(encoder, encoder.encode(frame), "v"), ids)


def test_sequences_keep_the_last_items_and_share_the_vocabulary() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "a", "c"] * 5,
            "hist_item_id": [["a", "b", "c", "a"], [], ["z", None, "b"], None] * 5,
            "y": [0, 1] * 10,
        }
    )
    encoder, parts = fit(frame, changes={"hist_item_id": {"max_length": 3}})
    item, history = encoder.spec.fields
    assert history.vocabulary == "item_id"
    assert history.size == item.size
    assert history.length == 3
    rows = column(encoder, parts["train"], "hist_item_id")[:4]
    ids = dict(zip("abac", column(encoder, parts["train"], "item_id")[:4], strict=True))
    unknown = rows[2, 0]  # "z" occurs in histories only, often enough for an id of its own
    assert unknown >= 2
    assert rows.tolist() == [[ids["b"], ids["c"], ids["a"]], [0] * 3, [unknown, ids["b"], 0], [0] * 3]


def test_multi_fields_from_text_and_lists_agree() -> None:
    text = ["a|b", "b", "", None, "c| a |b", "a|zz"] * 4
    lists = [["a", "b"], ["b"], [], None, ["c", "a", "b"], ["a", "zz"]] * 4
    y = [0, 1] * 12
    from_text = fit(
        pl.DataFrame({"tags": text, "y": y}),
        roles={"tags": "multi"},
        changes={"tags": {"separator": "|", "pooling": "max"}},
    )
    from_lists = fit(pl.DataFrame({"tags": lists, "y": y}), changes={"tags": {"pooling": "max"}})
    np.testing.assert_array_equal(column(*_train(from_text), "tags"), column(*_train(from_lists), "tags"))
    assert from_text[0].spec.fields == from_lists[0].spec.fields
    assert from_text[0].spec.fields[0].pooling == "max"
    assert from_text[0].spec.fields[0].length == 3


def _train(fitted: tuple[TableEncoder, dict[str, EncodedTable]]) -> tuple[TableEncoder, EncodedTable]:
    return fitted[0], fitted[1]["train"]


def test_list_length_is_that_of_training_rows() -> None:
    frame = pl.DataFrame({"seq": [["a", "b"]] * 8 + [["a", "a", "b", "b"]] * 2, "y": [0, 1] * 5})
    encoder, parts = fit(frame, split=Split.order(valid=0.2, test=0))
    assert encoder.spec.fields[0].length == 2
    assert column(encoder, parts["valid"], "seq").tolist() == [[3, 3]] * 2  # the last two
    assert column(encoder, encoder.encode(frame.tail(2)), "seq").tolist() == [[3, 3]] * 2


def test_lists_of_integers_and_digit_strings_agree() -> None:
    frame = pl.DataFrame({"seq": [[1, 2], [2], [3, 1]] * 6, "y": [0, 1] * 9})
    encoder, parts = fit(frame)
    text = frame.with_columns(pl.col("seq").cast(pl.List(pl.String)))
    np.testing.assert_array_equal(
        column(encoder, encoder.encode(text), "seq"), column(encoder, parts["train"], "seq")
    )


def test_timestamp_parts() -> None:
    at = [dt.datetime(2024, 5, 31, 23, 15), dt.datetime(2024, 6, 1, 0, 5), None, dt.datetime(2024, 1, 1, 12)]
    frame = pl.DataFrame({"at": at * 5, "y": [0, 1] * 10})
    parts_of = ("hour", "weekday", "day", "month", "hour_of_week", "weekend")
    encoder, parts = fit(frame, changes={"at": {"parts": parts_of}})
    rows = parts["train"].read(0, 4).features.categorical.numpy() - 2
    assert rows.tolist() == [[23, 4, 30, 4, 119, 0], [0, 5, 0, 5, 120, 1], [-2] * 6, [12, 0, 0, 0, 12, 0]]
    assert [f.name for f in encoder.spec.fields] == [f"at.{p}" for p in parts_of]
    text = frame.select(pl.col("at").dt.strftime("%Y-%m-%d %H:%M:%S"))
    np.testing.assert_array_equal(encoder.encode(text).read(0, 4).features.categorical.numpy() - 2, rows)


def test_hours_are_those_of_the_zone_that_was_fitted(tmp_path: Path) -> None:
    start = pl.datetime(2024, 3, 30, 12, time_zone="UTC")  # the clocks change in the night after
    hours = pl.datetime_range(start, start + pl.duration(hours=39), "1h", eager=True)
    berlin = hours.dt.convert_time_zone("Europe/Berlin")
    frame = pl.DataFrame({"at": berlin, "y": [0, 1] * 20})
    encoder, parts = fit(frame)
    rows = column(encoder, parts["train"], "at.hour") - 2
    assert rows.tolist() == berlin.dt.hour().to_list() != hours.dt.hour().to_list()
    frame.write_csv(tmp_path / "offsets.csv")
    for other in (
        pl.DataFrame({"at": hours}),
        tmp_path / "offsets.csv",
        pl.DataFrame({"at": hours.dt.to_string("%Y-%m-%dT%H:%M:%SZ")}),
        pl.DataFrame({"at": berlin.dt.replace_time_zone(None)}),  # names no zone: what the clock shows
    ):
        np.testing.assert_array_equal(column(encoder, encoder.encode(other), "at.hour") - 2, rows)
    seconds = pl.DataFrame({"at": hours.dt.epoch("s"), "y": [0, 1] * 20})
    change = {"role": "timestamp", "unit": "s", "zone": "Europe/Berlin"}
    encoder, parts = fit(seconds, changes={"at": change})
    assert (column(encoder, parts["train"], "at.hour") - 2).tolist() == rows.tolist()


def test_numeric_timestamps() -> None:
    frame = pl.DataFrame(
        {"timestamp": [1_700_000_000_000 + 3_600_000 * i for i in range(40)], "y": [0, 1] * 20}
    )
    encoder, parts = fit(frame)
    assert encoder.schema["timestamp"].unit == "ms"
    hours = column(encoder, parts["train"], "timestamp.hour") - 2
    assert hours.tolist() == [(22 + i) % 24 for i in range(40)]  # 2023-11-14 22:13:20


@settings(max_examples=30)
@given(
    st.lists(st.none() | st.lists(st.none() | st.integers(0, 5), max_size=7), min_size=4, max_size=30),
    st.integers(1, 5),
)
def test_lists_equal_plain_python(rows: list[list[int | None] | None], length: int) -> None:
    frame = pl.DataFrame(
        {"seq": pl.Series(rows, dtype=pl.List(pl.Int64)), "y": [i % 2 for i in range(len(rows))]}
    )
    encoder, parts = fit(frame, changes={"seq": {"max_length": length, "min_count": 1}})
    vocabulary = {v: i + 2 for i, v in enumerate(encoder.coders[0].book.vocabulary.values.to_list())}  # type: ignore[attr-defined]
    width = encoder.spec.fields[0].length
    want = []
    for row in rows:
        kept = [v for v in row or [] if v is not None][-length:]
        ids = [vocabulary[str(v)] for v in kept]  # only kept items are counted
        want.append(ids + [0] * (width - len(ids)))
    assert column(encoder, parts["train"], "seq").tolist() == want


@pytest.mark.parametrize("transform", ["piecewise", "standard", "quantile"])
def test_numbers_too_large_for_float32_are_told_of(transform: str) -> None:
    frame = pl.DataFrame({"v": [1e60, -1e60, 1.5, 2.5] * 20, "y": [0, 1] * 40})
    encoder = TableEncoder(TableSchema.infer(frame, "y").replace("v", role="numeric", transform=transform))
    with pytest.warns(UserWarning, match=r"column 'v' has numbers beyond 3.4e38.*transform: log"):
        encoder.fit_encode(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(frame)  # which was told of
