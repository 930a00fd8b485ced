"""A schema as a YAML file is a round trip, and `check` holds a table to it in one line."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ConfigError, DataError, SchemaError
from graphrec.pipelines.tables import Column, Role, TableSchema


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": "klick"}, "label column 'klick' is missing; did you mean 'click'"),
        ({"label": "click", "weight": "w"}, "weight column 'w' is missing"),
        ({"label": "click", "group": "w"}, "group column 'w' is missing"),
        ({"label": "click", "ignore": ["w"]}, "ignored column 'w' is missing"),
        ({"label": "click", "roles": {"w": "numeric"}}, "role column 'w' is missing"),
        (
            {"label": "click", "roles": {"age": "numerical"}},
            "unknown role 'numerical'; choose from categorical",
        ),
        ({"label": "click", "ignore": ["click"]}, "'click' cannot be the label and something else"),
    ],
)
def test_unknown_names(log: pl.DataFrame, options: dict, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        TableSchema.infer(log, **options)


def test_yaml_round_trip(log: pl.DataFrame, tmp_path: Path) -> None:
    schema = TableSchema.infer(log, "click", weight="weight", ignore=["age"])
    path = tmp_path / "schema.yaml"
    schema.to_yaml(path)
    text = path.read_text()
    assert text.startswith("#")
    assert "hist_item_id: {role: sequence" in text
    assert TableSchema.from_yaml(path) == schema


def test_yaml_edits(log: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    TableSchema.infer(log, "click").to_yaml(path)
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("  age: "))
    edited = line.replace("transform: piecewise", "transform: quantile, bins: 8")
    path.write_text(text.replace(line, edited))
    age = TableSchema.from_yaml(path)["age"]
    assert (age.transform, age.bins) == ("quantile", 8)
    path.write_text(text.replace(line, edited.replace("role:", "bins: 4, role:")))
    with pytest.raises(SchemaError, match=r"line [0-9]+ says 'bins' twice; keep one"):
        TableSchema.from_yaml(path)


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)


@settings(max_examples=60)
@given(st.lists(names, min_size=1, max_size=5, unique=True), st.data())
def test_yaml_round_trip_of_any_names(names: list[str], data: st.DataObject) -> None:
    import tempfile

    columns = [
        Column(
            name=name,
            role=data.draw(st.sampled_from([Role.CATEGORICAL, Role.NUMERIC, Role.SEQUENCE])),
            min_count=data.draw(st.integers(1, 9)),
            separator=data.draw(st.none() | st.sampled_from(["|", ":", "#", "' ", "- "])),
        )
        for name in names
    ]
    schema = TableSchema.build(columns)
    with tempfile.TemporaryDirectory() as folder:
        schema.to_yaml(Path(folder) / "s.yaml")
        assert TableSchema.from_yaml(Path(folder) / "s.yaml") == schema


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("columns: [1", "not YAML"),
        ("a: 1", "needs a mapping 'columns'"),
        ("columns: {x: {role: nummeric}}", "column 'x': role"),
        ("columns: {x: {role: numeric, tranform: log}}", "column 'x': tranform"),
        ("columns: {x: {role: numeric, bins: 1}}", "column 'x': bins"),
        ("columns: {x: 5}", "column 'x': expected a role"),
        ("columns: {x: numeric}\ngroup: z", "group names the column 'z'"),
        ("columns: {x: {role: sequence, shares: z}}", "'x' shares the vocabulary of 'z'"),
        ("columns: {x: numeric}\ncolour: red", "unknown key 'colour'"),
        ("columns: {t: timestamp, t.hour: categorical}", "two columns become the field 't.hour'"),
        ("columns: {x: weight, z: weight}", "several columns have the role weight"),
    ],
)
def test_yaml_mistakes_name_file_and_column(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SchemaError, match=words) as caught:
        TableSchema.from_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_replace(log: pl.DataFrame) -> None:
    schema = TableSchema.infer(log, "click").replace("age", role="categorical", min_count=1)
    assert schema["age"].role is Role.CATEGORICAL
    with pytest.raises(ConfigError, match="column 'age': min_count"):
        schema.replace("age", min_count=0)


CHECKS = [
    (lambda f: f.drop("item_id"), "feature column 'item_id' is missing; did you mean 'hist_item_id'"),
    (lambda f: f.drop("click"), "label column 'click' is missing"),
    (lambda f: f.drop("weight"), "weight column 'weight' is missing"),
    (
        lambda f: f.with_columns(pl.lit("abc").alias("price")),
        "column 'price' should hold numbers .* 600 rows, such as 'abc'",
    ),
    (
        lambda f: f.with_columns(
            pl.when(pl.int_range(pl.len()) == 7)
            .then(pl.lit("old"))
            .otherwise(pl.col("age").cast(pl.String))
            .alias("age")
        ),
        "column 'age' should hold numbers but has text in 1 row, such as 'old'",
    ),
    (
        lambda f: f.with_columns(click=pl.lit(3)),
        "label column 'click' holds '3' in 600 rows; expected the two values 0 and 1",
    ),
    (lambda f: f.with_columns(click=pl.lit(None, pl.Int8)), "label column 'click' is null in every row"),
    (lambda f: f.with_columns(weight=-pl.col("weight")), "weight column 'weight' is -.* in 600 rows"),
    (lambda f: f.with_columns(item_id=pl.struct("item_id")), "column 'item_id' is a struct"),
    (lambda f: f.with_columns(item_id=pl.concat_list("item_id")), "column 'item_id' is a list"),
    (lambda f: f.with_columns(hist_item_id=pl.lit("a")), "column 'hist_item_id' is String, not a list"),
    (lambda f: f.with_columns(shown_at=pl.lit(1.5)), "column 'shown_at' is Float64, not a timestamp"),
]


@pytest.mark.parametrize(("change", "words"), CHECKS, ids=[c[1][:40] for c in CHECKS])
def test_check_refuses(log: pl.DataFrame, change, words: str, tmp_path: Path) -> None:
    schema = TableSchema.infer(log, "click", weight="weight")
    path = tmp_path / "new.parquet"
    change(log).write_parquet(path)
    started = time.monotonic()
    with pytest.raises(DataError, match=words) as caught:
        schema.check(path)
    assert time.monotonic() - started < 5  # a second, on a machine that is not busy
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


FINE = [
    lambda f: f.with_columns(extra=pl.lit(1)),
    lambda f: f.with_columns(pl.col("age").cast(pl.String)),
    lambda f: f.with_columns(pl.col("price").cast(pl.String)),
    lambda f: f.with_columns(pl.col("age").cast(pl.String).fill_null("NA").replace("20", "")),
    lambda f: f.with_columns(pl.col("user_id").cast(pl.String)),
    lambda f: f.with_columns(price=pl.lit(None, pl.Float64)),
    lambda f: f.with_columns(item_id=pl.lit(None, pl.String)),
    lambda f: f.with_columns(hist_item_id=pl.lit(None)),
    lambda f: f.with_columns(price=pl.lit(float("inf"))),
    lambda f: f.with_columns(pl.col("click").cast(pl.Boolean)),
    lambda f: f.with_columns(pl.col("click").cast(pl.String)),
    lambda f: f.with_columns(pl.col("shown_at").dt.to_string("iso")),
    lambda f: f.head(1),
]


@pytest.mark.parametrize("change", FINE)
def test_check_accepts_what_converts(log: pl.DataFrame, change) -> None:
    schema = TableSchema.infer(log, "click", weight="weight")
    schema.check(change(log))


def test_check_without_labels(log: pl.DataFrame) -> None:
    schema = TableSchema.infer(log, "click", weight="weight")
    schema.check(log.drop("click", "weight"), require_labels=False)
    with pytest.raises(SchemaError, match="feature column 'price' is missing"):
        schema.check(log.drop("click", "price"), require_labels=False)


def test_a_column_that_a_schema_says_twice_is_refused(tmp_path: Path) -> None:
    text = "group:\ntime:\ncolumns:\n  a: numeric\n  y: label\n  a: categorical\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SchemaError, match=r"s\.yaml: lines 4 and 6 both say 'a'; keep one"):
        TableSchema.from_yaml(tmp_path / "s.yaml")
