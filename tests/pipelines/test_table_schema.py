"""Inference guesses what a practitioner would, and what no role can use is refused in one line."""

from __future__ import annotations

import datetime as dt
import decimal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphrec.errors import ConfigError, DataError, SchemaError
from graphrec.pipelines.tables import Column, Role, Split, TableEncoder, TableSchema, open_table
from graphrec.pipelines.tables.values import text_of

N = 400
RNG = np.random.default_rng(0)
Y = pl.Series("y", (RNG.random(N) < 0.4).astype(int))


def infer_one(name: str, values: object, **options: object) -> Column:
    frame = pl.DataFrame([pl.Series(name, values), Y[: len(values)]])  # type: ignore[arg-type]
    return TableSchema.infer(frame, "y", **options)[name]  # type: ignore[arg-type]


GUESSES = [
    ("city", [f"c{k}" for k in RNG.integers(0, 9, N)], Role.CATEGORICAL),
    ("premium", RNG.random(N) < 0.5, Role.CATEGORICAL),
    ("user_id", RNG.integers(0, 1000, N), Role.CATEGORICAL),
    ("movieId", RNG.integers(0, 1000, N), Role.CATEGORICAL),
    ("zipcode", RNG.integers(10_000, 99_999, N), Role.CATEGORICAL),
    ("device_type", RNG.integers(0, 5, N), Role.CATEGORICAL),
    ("age", RNG.integers(18, 90, N), Role.NUMERIC),
    ("views", RNG.integers(0, 10_000, N), Role.NUMERIC),
    ("hashed", RNG.integers(2**40, 2**50, N), Role.CATEGORICAL),
    ("price", RNG.random(N), Role.NUMERIC),
    ("item_id", np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(0, 99, N)), Role.CATEGORICAL),
    ("ratio", [f"{x:.3f}" for x in RNG.random(N)], Role.NUMERIC),
    ("digits", [str(k) for k in RNG.integers(0, 99, N)], Role.CATEGORICAL),
    ("gaps", ["NA" if x < 0.1 else f"{x:.3f}" for x in RNG.random(N)], Role.NUMERIC),
    ("whole_gaps", ["null" if k < 9 else str(k) for k in RNG.integers(0, 999, N)], Role.NUMERIC),
    ("user_id", ["null" if k < 9 else str(k) for k in RNG.integers(0, 999, N)], Role.CATEGORICAL),
    ("padded", ["NA" if k < 9 else f"{k:05d}" for k in RNG.integers(0, 999, N)], Role.CATEGORICAL),
    ("clicked_items", [[f"i{k}" for k in range(i % 4)] for i in range(N)], Role.SEQUENCE),
    ("genres", [["drama"] * (i % 3) for i in range(N)], Role.MULTI),
    (
        "genres",
        ["|".join(np.array(["a", "b", "c", "d"])[RNG.permutation(4)[: 1 + i % 3]]) for i in range(N)],
        Role.MULTI,
    ),
    ("title", [f"The {a}, part {b}" for a, b in RNG.integers(0, 99, (N, 2))], Role.CATEGORICAL),
    ("at", [dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(N)], Role.TIMESTAMP),
    ("day", [dt.date(2024, 1, 1) + dt.timedelta(days=i) for i in range(N)], Role.TIMESTAMP),
    ("seen", [f"2024-01-{1 + i % 28:02d} 10:00:00" for i in range(N)], Role.TIMESTAMP),
    ("timestamp", RNG.integers(1_500_000_000, 1_700_000_000, N), Role.TIMESTAMP),
    ("event_time", RNG.integers(1_500_000_000_000, 1_700_000_000_000, N), Role.TIMESTAMP),
    ("time_spent", RNG.integers(0, 500, N), Role.NUMERIC),
    ("nothing", [None] * N, Role.CATEGORICAL),
    ("constant", ["a"] * N, Role.CATEGORICAL),
    ("waited", [dt.timedelta(seconds=i) for i in range(N)], Role.NUMERIC),
]


@pytest.mark.parametrize(("name", "values", "role"), GUESSES, ids=[f"{g[0]}-{g[2]}" for g in GUESSES])
def test_guesses(name: str, values: object, role: Role) -> None:
    assert infer_one(name, values).role is role


def test_options_that_are_guessed() -> None:
    assert infer_one("spend", RNG.lognormal(4, 2, N)).transform == "piecewise"
    assert infer_one("event_time", RNG.integers(1_500_000_000_000, 1_700_000_000_000, N)).unit == "ms"
    assert infer_one("at", [dt.datetime(2024, 1, 1)] * N).parts == ("hour", "weekday")
    genres = ["|".join("abcd"[k] for k in RNG.permutation(4)[: 1 + i % 3]) for i in range(N)]
    assert infer_one("kinds", genres).separator == "|"


def test_unique_strings_are_noted() -> None:
    frame = pl.DataFrame({"request": [f"r{i}" for i in range(2000)], "y": [0, 1] * 1000})
    assert "consider ignoring" in TableSchema.infer(frame, "y")["request"].note


def test_special_columns(log: pl.DataFrame) -> None:
    schema = TableSchema.infer(log, "click", weight="weight", ignore=["age"], roles={"premium": "ignored"})
    assert schema.labels == ("click",)
    assert schema["click"].classes == (0, 1)
    assert schema.weight == "weight"
    assert schema.group == "user_id"
    assert schema.time == "shown_at"
    assert schema["user_id"].is_feature
    assert schema["age"].role is schema["premium"].role is Role.IGNORED
    assert schema["hist_item_id"].shares == "item_id"
    assert [c.name for c in schema.features] == [
        "user_id",
        "item_id",
        "price",
        "hist_item_id",
        "tags",
        "shown_at",
    ]


def test_group_only_when_asked_or_named(log: pl.DataFrame) -> None:
    assert TableSchema.infer(log.rename({"user_id": "who_id"}), "click").group is None
    assert TableSchema.infer(log, "click", group="age").group == "age"
    assert TableSchema.infer(log, "click", group="age")["age"].role is Role.CATEGORICAL
    only = TableSchema.infer(log, "click", roles={"age": "group"})
    assert only.group == "age"
    assert not only["age"].is_feature


def test_sharing_needs_overlapping_values(log: pl.DataFrame) -> None:
    other = log.with_columns(pl.col("hist_item_id").list.eval(pl.lit("z") + pl.element()))
    assert TableSchema.infer(other, "click")["hist_item_id"].shares is None
    numbers = pl.DataFrame(
        {"movie_id": [1, 2, 3] * 40, "history_movie_ids": [[3], [1, 2], []] * 40, "y": [0, 1] * 60}
    )
    assert TableSchema.infer(numbers, "y")["history_movie_ids"].shares == "movie_id"


def test_pretty_print(log: pl.DataFrame) -> None:
    text = str(TableSchema.infer(log, "click", weight="weight"))
    assert "hist_item_id" in text
    assert "shares=item_id" in text
    assert "group" in text
    assert all(len(line) < 120 for line in text.splitlines())


LABELS = [
    ([0, 1], (0, 1)),
    ([1, 2], (1, 2)),
    ([-1, 1], (-1, 1)),
    ([0.0, 1.0], (0, 1)),
    ([False, True], (False, True)),
    (["no", "yes"], ("no", "yes")),
    (["0", "1"], ("0", "1")),
    (["10", "9"], ("9", "10")),
    ([">50K", "<=50K"], ("<=50K", ">50K")),
]


@pytest.mark.parametrize(("values", "classes"), LABELS, ids=[str(x[1]) for x in LABELS])
def test_label_classes(values: list[object], classes: tuple[object, object], tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.5, 2.5] * 10, "y": values * 10})
    schema = TableSchema.infer(frame, "y")
    assert schema["y"].classes == classes
    schema.to_yaml(tmp_path / "s.yaml")
    assert TableSchema.from_yaml(tmp_path / "s.yaml")["y"].classes == classes


def test_missing_labels_are_allowed() -> None:
    assert TableSchema.infer(pl.DataFrame({"x": [1.0, 2, 3], "y": [0, 1, None]}), "y")["y"].classes == (0, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 2], r"3 different values \(0, 1, 2\)"),
        ([0.1, 0.7, 0.3, 0.9, 0.2, 0.5], r"6 different values \(0\.1, .*\.\.\.\)"),
        ([1, 1, 1], "only one value, '1'"),
        ([None, None, None], "null in every row"),
        ([[0], [1], [0]], "is a list"),
    ],
)
def test_unusable_labels(values: list[object], words: str) -> None:
    frame = pl.DataFrame({"x": range(len(values)), "y": values})
    with pytest.raises(DataError, match=f"the data frame: label column 'y'.*{words}"):
        TableSchema.infer(frame, "y")


@pytest.mark.parametrize(
    ("bad", "words"), [(-1.0, "-1 in 1 rows"), (np.nan, "NaN"), (np.inf, "inf"), (None, "missing")]
)
def test_bad_weights(bad: float | None, words: str) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0], "w": [1.0, bad], "y": [0, 1]})
    with pytest.raises(DataError, match=f"weight column 'w' is .*{words}"):
        TableSchema.infer(frame, "y", weight="w")


def test_weights_of_zero_and_text() -> None:
    with pytest.raises(DataError, match="zero in every row"):
        TableSchema.infer(pl.DataFrame({"x": [1.0, 2.0], "w": [0, 0], "y": [0, 1]}), "y", weight="w")
    with pytest.raises(SchemaError, match="weights are numbers"):
        TableSchema.infer(pl.DataFrame({"x": [1.0, 2.0], "w": ["a", "b"], "y": [0, 1]}), "y", weight="w")


NESTED = {
    "is a struct": pl.Series("s", [{"a": 1}, {"a": 2}]),
    "is binary": pl.Series("s", [b"a", b"b"]),
    "list of lists": pl.Series("s", [[[1]], [[2]]]),
    "list of structs": pl.Series("s", [[{"a": 1}], []]),
    "list of decimal numbers": pl.Series("s", [[0.5], [1.5]]),
}


@pytest.mark.parametrize("words", NESTED)
def test_nested_columns_are_refused_unless_ignored(words: str) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0], "y": [0, 1]}).with_columns(NESTED[words])
    with pytest.raises(SchemaError, match=f"column 's' .*{words}.*ignore it"):
        TableSchema.infer(frame, "y")
    schema = TableSchema.infer(frame, "y", ignore=["s"])
    schema.check(frame)


def test_arrow_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "view": pa.array(["a", "b"] * 50, pa.string_view()),
            "large": pa.array(["a", None] * 50, pa.large_string()),
            "coded": pa.array(["a", "b"] * 50).dictionary_encode(),
            "half": pa.array(np.arange(100, dtype=np.float16)),
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(list(range(200))), 2),
            "money": pa.array([1, 2] * 50).cast(pa.decimal128(23, 2)),
            "y": pa.array([0, 1] * 50, pa.uint8()),
        }
    )
    roles = {c.name: c.role for c in TableSchema.infer(table, "y").columns}
    assert roles["view"] is roles["large"] is roles["coded"] is Role.CATEGORICAL
    assert roles["half"] is roles["money"] is Role.NUMERIC
    assert roles["fixed"] is Role.SEQUENCE


def test_a_timestamp_without_parts_orders_rows_only(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("columns: {t: timestamp, u: {role: timestamp, parts: []}, y: label}")
    schema = TableSchema.from_yaml(tmp_path / "s.yaml")
    assert schema["t"].parts == ("hour", "weekday")
    assert [c.name for c in schema.features] == ["t"]


def test_types_that_no_role_can_use_are_named() -> None:
    base = {"x": pa.array([1.0, 2.0]), "y": pa.array([0, 1])}
    pairs = pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(SchemaError, match=r"column 's' is Map.*or ignore it"):
        TableSchema.infer(pa.table({**base, "s": pairs}), "y")
    huge = pl.Series([2**70, 1])
    for values, kind in ((huge, "is Int128"), (pl.Series([[2**70], []]), "is a list of Int128")):
        with pytest.raises(SchemaError, match=f"column 's' {kind}, which nothing else reads"):
            TableSchema.infer(pl.DataFrame({"x": [1.0, 2.0], "y": [0, 1], "s": values}), "y")


def test_decimals_of_256_bits_are_named(tmp_path: Path) -> None:
    wide = pa.array([decimal.Decimal(1), None], pa.decimal256(50, 3))
    table = pa.table({"x": [1.0, 2.0], "y": [0, 1], "s": wide})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    frame = pd.DataFrame({"x": [1.0], "y": [0], "s": [decimal.Decimal(10) ** 45]})
    lists = pa.table({"y": [0, 1], "s": pa.array([[decimal.Decimal(1)], None], pa.list_(wide.type))})
    for data in (table, frame, lists, tmp_path / "t.parquet", tmp_path / "t.arrow"):
        with pytest.raises(SchemaError, match=r"column 's' is .*cast it to"):
            TableSchema.infer(data, "y", roles={"x": "numeric"} if data is table else {})
    narrow = TableSchema.infer(table.select(["x", "y"]), "y")
    narrow.check(tmp_path / "t.parquet")  # where it is a column more, which nobody reads


def test_numbers_too_large_for_any_type_are_named() -> None:
    for data in (pd.DataFrame({"y": [0, 1], "s": [2**70, 1]}), {"y": [0, 1], "s": [2**140, 1]}):
        with pytest.raises(DataError, match=r"column 's' holds numbers too large.*write them as text"):
            open_table(data)
    with pytest.raises(DataError, match="column 's' has no one type"):
        open_table({"y": [0, 1], "s": [1, "x"]})


def test_text_that_is_no_time_is_named() -> None:
    frame = pl.DataFrame({"c": ["k1", "k2"] * 20, "y": [0, 1] * 20})
    schema = TableSchema.infer(frame, "y")
    with pytest.raises(SchemaError, match="column 'c' should hold times but has text such as 'k1'"):
        TableEncoder(schema).fit_encode(frame, Split.time("c", valid=0.1, test=0.0))


def test_decimals_are_the_categories_that_numbers_are() -> None:
    plain = pl.Series([7, 70, None])
    for kind in (pl.Decimal(10, 2), pl.Decimal(10, 0), pl.Float64):
        assert text_of(plain.cast(kind)).to_list() == ["7", "70", None]
    assert text_of(pl.Series(["0.50"]).str.to_decimal(scale=2)).to_list() == ["0.5"]


def test_spans_of_time_are_the_same_categories_however_finely_they_are_counted() -> None:
    spans = pl.Series([dt.timedelta(hours=1), None, dt.timedelta(days=2, microseconds=5)])
    assert text_of(spans).to_list() == text_of(spans.cast(pl.Duration("ns"))).to_list()
    assert text_of(spans).n_unique() == 3


def test_labels_beyond_the_digits_of_a_float() -> None:
    labels = pl.Series([2**64 - 1, 2**64 - 2], dtype=pl.UInt64)
    schema = TableSchema.infer(pl.DataFrame({"x": [0.5, 1.5], "y": labels}), "y")
    assert schema["y"].classes == (2**64 - 2, 2**64 - 1)


@pytest.mark.parametrize("written", ["{:.2f}", "{:,.2f}", "{:,.0f}", "${:.2f}", "{:.1f} %", "1.000,{:.0f}"])
def test_numbers_in_another_writing_are_told_by_name(written: str) -> None:
    values = [written.format(float(x)) for x in RNG.random(N) * 1e4]
    values = [v.replace(".", ",") for v in values] if written == "{:.2f}" else values
    frame = pl.DataFrame({"price": [*values[1:], "NA"], "y": [0, 1] * (N // 2)})
    with pytest.warns(UserWarning, match="column 'price' holds numbers written like '.* like 3"):
        assert TableSchema.infer(frame, "y")["price"].role in (Role.CATEGORICAL, Role.MULTI)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableSchema.infer(frame, "y", roles={"price": "categorical"})


@pytest.mark.parametrize("text", ["10.0.0.{}", "1,2,{}", "{}-5", "v{}", "0{}", "12:{}", "{},a"])
def test_other_text_with_digits_is_no_number(text: str) -> None:
    frame = pl.DataFrame({"c": [text.format(i) for i in RNG.integers(10, 99, N)], "y": [0, 1] * (N // 2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableSchema.infer(frame, "y")


def test_an_index_without_a_name_is_no_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": RNG.normal(size=N), "y": [0, 1] * (N // 2)})
    frame.to_csv(tmp_path / "t.csv")
    schema = TableSchema.infer(tmp_path / "t.csv", "y")
    assert [c.name for c in schema.features] == ["x"]
    schema.to_yaml(tmp_path / "s.yaml")
    assert TableSchema.from_yaml(tmp_path / "s.yaml") == schema


def test_a_column_that_becomes_a_timestamp_has_the_usual_parts() -> None:
    schema = TableSchema.infer(pl.DataFrame({"t": [7, 8], "y": [0, 1]}), "y")
    assert schema.replace("t", role="timestamp", unit="s")["t"].parts == ("hour", "weekday")
    without = schema.replace("t", role="timestamp", unit="s", parts=())
    assert without.replace("t", unit="ms")["t"].parts == ()


def test_a_time_zone_that_does_not_exist_is_refused() -> None:
    schema = TableSchema.infer(pl.DataFrame({"t": [dt.datetime(2024, 1, 1)] * 2, "y": [0, 1]}), "y")
    with pytest.raises(ConfigError, match="'Europe/Berln' is no time zone; name one such as UTC"):
        schema.replace("t", zone="Europe/Berln")


def test_names_that_are_none() -> None:
    frame = pl.DataFrame({"price": [0.5, 1.5], "x": [1, 2], "y": [0, 1]})
    with pytest.raises(ConfigError, match="label: 3 is neither the name of a column nor a list"):
        TableSchema.infer(frame, 3)  # type: ignore[arg-type]
    assert [c.name for c in TableSchema.infer(frame, "y", ignore="price").features] == ["x"]
    with pytest.raises(ConfigError, match="quotient_remainder: -4 is no number of remainders"):
        TableSchema.infer(frame, "y").replace("x", role="categorical", quotient_remainder=-4)
