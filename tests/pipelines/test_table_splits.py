"""Every split gives each row one part, the same every time, and keeps its promise."""

from __future__ import annotations

import datetime as dt
import gc
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ConfigError, DataError, SchemaError
from graphrec.pipelines.tables import Split, TableSchema, open_table
from graphrec.pipelines.tables.encoder import TableEncoder

ROWS = 4000


def table(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "row": np.arange(rows, dtype=np.float64),
            "who": rng.integers(0, rows // 10 + 1, rows),
            "at": [dt.datetime(2024, 1, 1) + dt.timedelta(hours=int(h)) for h in rng.integers(0, 2000, rows)],
            "y": (rng.random(rows) < 0.05).astype(int),
        }
    )


def parts_of(frame: pl.DataFrame, split: Split, batch_rows: int = 700) -> np.ndarray:
    """The part of every row, read in several batches."""
    opened = open_table(frame)
    schema = TableSchema.infer(frame, "y")
    assign = split.assigner(opened, schema)
    assert assign is not None
    out, start = [], 0
    for batch in opened.batches(frame.columns, rows=batch_rows):
        out.append(assign(batch, start))
        start += batch.num_rows
    return np.concatenate(out)


def test_random_has_the_fractions_and_the_label_rate() -> None:
    frame = table()
    parts = parts_of(frame, Split.random(0.1, 0.2, seed=3))
    y = frame["y"].to_numpy()
    assert np.bincount(parts) == pytest.approx([2800, 400, 800], abs=3)
    for part in range(3):
        assert y[parts == part].sum() == pytest.approx(y.sum() * (parts == part).mean(), abs=2)


def test_random_depends_on_the_seed_only() -> None:
    frame = table()
    one = parts_of(frame, Split.random(0.1, 0.1, seed=1))
    np.testing.assert_array_equal(one, parts_of(frame, Split.random(0.1, 0.1, seed=1), batch_rows=333))
    other = parts_of(frame, Split.random(0.1, 0.1, seed=2))
    assert (one != other).mean() == pytest.approx(2 * 0.2 - 0.1 * 0.1 * 2 - 0.2 * 0.2 + 0.02, abs=0.08)


def test_random_is_spread_over_the_rows() -> None:
    parts = parts_of(table(), Split.random(0.1, 0.1, stratify=False))
    held = parts.reshape(20, 200) != 0
    assert held.sum(1) == pytest.approx(np.full(20, 40), abs=4)
    assert np.bincount(np.flatnonzero(parts != 0) % 5, minlength=5).std() > 0  # not every fifth row


@settings(max_examples=60)
@given(st.integers(2, 300), st.floats(0, 0.6), st.floats(0, 0.39), st.integers(0, 5))
def test_random_counts_of_any_size(rows: int, valid: float, test: float, seed: int) -> None:
    split = Split.random(valid, test, seed, stratify=False)
    parts = split._draw(np.arange(rows), 0)
    counts = np.bincount(parts, minlength=3)
    assert counts.sum() == rows
    assert counts[1] + counts[2] == pytest.approx(rows * (valid + test), abs=1.01)
    assert counts[2] == pytest.approx(rows * test, abs=2.01)


def test_several_labels_are_stratified_together() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.random(4000), "a": rng.random(4000) < 0.1, "b": rng.random(4000) < 0.3})
    opened, schema = open_table(frame), TableSchema.infer(frame, ["a", "b"])
    assign = Split.random(0.25, 0.0).assigner(opened, schema)
    assert assign is not None
    parts = np.concatenate([assign(b, 0) for b in opened.batches(["a", "b"])])
    both = frame.select(pl.col("a") & pl.col("b")).to_series().to_numpy()
    assert both[parts == 1].sum() == pytest.approx(both.sum() / 4, abs=1)


def test_group_is_disjoint() -> None:
    frame = table()
    parts = parts_of(frame, Split.group("who", 0.2, 0.2))
    who = frame["who"].to_numpy()
    sets = [set(who[parts == p].tolist()) for p in range(3)]
    assert not sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]
    assert np.bincount(parts) / ROWS == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    text = frame.with_columns(pl.col("who").cast(pl.String))
    np.testing.assert_array_equal(parts, parts_of(text, Split.group("who", 0.2, 0.2)))
    assert (parts != parts_of(frame, Split.group("who", 0.2, 0.2, seed=1))).any()


def test_time_is_ordered() -> None:
    frame = table()
    parts = parts_of(frame, Split.time("at", 0.1, 0.2))
    at = frame["at"].to_numpy()
    assert at[parts == 0].max() < at[parts == 1].min()
    assert at[parts == 1].max() < at[parts == 2].min()
    assert np.bincount(parts) / ROWS == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


@pytest.mark.parametrize("form", ["text", "seconds", "date", "since"])
def test_time_in_other_forms(form: str) -> None:
    frame = table()
    at = pl.col("at")
    change = {
        "text": at.dt.strftime("%Y-%m-%dT%H:%M:%S"),
        "seconds": at.dt.epoch("s"),
        "date": at.dt.date(),
        "since": at - at.min(),
    }[form]
    parts = parts_of(frame.with_columns(change.alias("at")), Split.time("at", 0.1, 0.2))
    times = frame["at"].dt.truncate("1d" if form == "date" else "1h").to_numpy()
    assert times[parts == 0].max() < times[parts == 1].min()
    assert times[parts == 1].max() < times[parts == 2].min()


def test_time_at_given_moments() -> None:
    frame = table()
    for valid, test in (("2024-02-01", "2024-03-01"), (dt.date(2024, 2, 1), dt.datetime(2024, 3, 1))):
        parts = parts_of(frame, Split.time("at", valid, test))
        edges = np.array(["2024-02-01", "2024-03-01"], "datetime64[us]")
        np.testing.assert_array_equal(parts, np.searchsorted(edges, frame["at"].to_numpy(), side="right"))
    parts = parts_of(frame, Split.time("at", None, "2024-03-01"))
    assert set(parts.tolist()) == {0, 2}
    epoch = frame.with_columns(pl.col("at").dt.epoch("s").alias("at")).rename({"at": "timestamp"})
    np.testing.assert_array_equal(parts, parts_of(epoch, Split.time("timestamp", None, "2024-03-01")))


def test_rows_without_a_time_train() -> None:
    frame = table().with_columns(pl.when(pl.col("row") % 10 == 0).then(None).otherwise("at").alias("at"))
    parts = parts_of(frame, Split.time("at", 0.1, 0.1))
    assert set(parts[::10].tolist()) == {0}


def test_order() -> None:
    parts = parts_of(table(), Split.order(0.1, 0.2))
    assert np.bincount(parts).tolist() == [2800, 400, 800]
    assert (np.diff(parts.astype(int)) >= 0).all()


def test_files(tmp_path: Path) -> None:
    frames = {name: table(300, seed=i) for i, name in enumerate(("train", "valid", "test"))}
    for name, frame in frames.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    schema = TableSchema.infer(frames["train"], "y", ignore=["at"])
    split = Split.files(valid=tmp_path / "valid.parquet", test=tmp_path / "test.parquet")
    parts = TableEncoder(schema).fit_encode(tmp_path / "train.parquet", split)
    assert {k: len(v) for k, v in parts.items()} == {"train": 300, "valid": 300, "test": 300}
    np.testing.assert_array_equal(parts["test"].labels()[:, 0], frames["test"]["y"].to_numpy())
    frames["valid"].drop("y").write_parquet(tmp_path / "valid.parquet")
    with pytest.raises(SchemaError, match=r"valid\.parquet: the label column 'y' is missing"):
        TableEncoder(schema).fit_encode(tmp_path / "train.parquet", split)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Split.random(0.5, 0.5), "leave no rows"),
        (lambda: Split.random(-0.1, 0.1), "valid=-0.1 must be a fraction"),
        (lambda: Split.order(0.1, 1.5), "test=1.5 must be a fraction"),
        (lambda: Split.time("at", 0.1, "2024-01-01"), "mix a fraction and a time"),
        (lambda: Split.files(), "at least one"),
    ],
)
def test_mistakes_in_arguments(make, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split.time("when"), "split's column 'when' is missing"),
        (Split.group("whom"), "split's column 'whom' is missing; did you mean 'who'"),
        (
            Split.time("at", "2024-03-01", "2024-02-01"),
            "valid begins at 2024-03-01, after test at 2024-02-01",
        ),
        (Split.time("at", "March", "April"), "'March' is not a date"),
    ],
)
def test_mistakes_against_the_table(split: Split, words: str) -> None:
    with pytest.raises((SchemaError, ConfigError), match=words):
        parts_of(table(100), split)


def test_constant_time() -> None:
    with pytest.raises(DataError, match="most rows have its earliest value"):
        parts_of(table(100).with_columns(at=pl.lit(dt.datetime(2024, 1, 1))), Split.time("at"))


def test_a_refused_split_leaves_no_open_file() -> None:
    rows = pl.DataFrame({"x": ["a", "b"] * 50, "t": [1] * 100, "y": [0, 1] * 50})
    encoder = TableEncoder(TableSchema.infer(rows, "y", roles={"t": "ignored"}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(DataError, match="leaves no rows to train on"):
            encoder.fit_encode(rows, Split.time("t", valid=0, test=1))
        gc.collect()
    assert not told
