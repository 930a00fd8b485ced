"""A column that gives the label away is named; honest columns, rare ids among them, are not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from graphrec.pipelines.tables import Split, TableEncoder, TableSchema, describe_leaks, find_leaks
from graphrec.pipelines.tables.leakage import auc

RNG = np.random.default_rng(0)
N = 4000
Y = (RNG.random(N) < 0.3).astype(int)


def leaks(changes: dict[str, dict] | None = None, **columns: object) -> list[str]:
    frame = pl.DataFrame({"y": Y, "honest": RNG.normal(size=N) + Y, **columns})
    schema = TableSchema.infer(frame, "y")
    for name, change in (changes or {}).items():
        schema = schema.replace(name, **change)
    return find_leaks(TableEncoder(schema).fit_encode(frame, Split.none())["train"])


GUILTY = {
    "copy": Y,
    "text copy": np.where(Y == 1, "yes", "no"),
    "opposite": 1 - Y,
    "near copy": Y + RNG.normal(size=N) * 0.05,
    "negated": -(Y + RNG.normal(size=N) * 0.05),
    "present only when clicked": [float(i % 7) if y else None for i, y in enumerate(Y)],
    "absent only when clicked": [None if y else f"c{i % 50}" for i, y in enumerate(Y)],
    "many values, one side each": [f"{'p' if y else 'n'}{i % 30}" for i, y in enumerate(Y)],
    "list only when clicked": [["a"] if y else [] for y in Y],
}


@pytest.mark.parametrize("name", GUILTY)
def test_guilty_columns_are_named(name: str) -> None:
    assert leaks(**{name: GUILTY[name]}) == [name]


INNOCENT = {
    "strong but fair": Y + RNG.normal(size=N) * 0.4,
    "unique ids": [f"u{i}" for i in range(N)],
    "ids seen twice, on one label": [f"u{i // 2}" for i in np.argsort(np.argsort(Y, kind="stable"))],
    "constant": ["a"] * N,
    "all null": [None] * N,
    "random nulls": [None if RNG.random() < 0.5 else 1.0 for _ in range(N)],
    "noise": RNG.integers(0, 9, N),
}


@pytest.mark.parametrize("name", INNOCENT)
@pytest.mark.parametrize("min_count", [1, 2])
def test_innocent_columns_are_not(name: str, min_count: int) -> None:
    assert leaks({name: {"min_count": min_count}}, **{name: INNOCENT[name]}) == []


def test_any_of_several_labels_counts() -> None:
    other = RNG.integers(0, 2, N)
    frame = pl.DataFrame({"y": Y, "z": other, "copy_of_z": other, "x": RNG.random(N)})
    train = TableEncoder(TableSchema.infer(frame, ["y", "z"])).fit_encode(frame)["train"]
    assert find_leaks(train) == ["copy_of_z"]


def test_labels_together_find_what_each_finds_alone() -> None:
    z = [None if RNG.random() < 0.3 else int(v) for v in RNG.integers(0, 2, N)]
    columns = {
        "weak": RNG.normal(size=N) + Y,
        "kind": [f"k{2 * (v or 0) + int(RNG.integers(0, 3))}" for v in z],
        "gaps": [None if RNG.random() < 0.3 else 2.0 * (v or 0) + RNG.normal() for v in z],
        "told": [None if v else 1.0 for v in Y],
    }
    frame = pl.DataFrame({"y": Y, "z": z, "w": 1 - Y, **columns})

    def found(*labels: str) -> list[str]:
        schema = TableSchema.infer(frame, list(labels), ignore=sorted({"y", "z", "w"} - set(labels)))
        return find_leaks(TableEncoder(schema).fit_encode(frame)["train"], threshold=0.7)

    assert found("y") == found("w") == ["weak", "told"]
    assert found("z") == ["kind", "gaps"]
    assert found("y", "z", "w") == ["weak", "told", "kind", "gaps"]


def test_a_sample_of_a_large_table_is_enough() -> None:
    frame = pl.DataFrame({"y": Y, "copy": Y, "x": RNG.random(N)})
    train = TableEncoder(TableSchema.infer(frame, "y")).fit_encode(frame)["train"]
    assert find_leaks(train, sample=1000) == ["copy"]


def test_tiny_tables_prove_nothing() -> None:
    frame = pl.DataFrame({"y": [0, 1] * 6, "copy": [0, 1] * 6})
    assert find_leaks(TableEncoder(TableSchema.infer(frame, "y")).fit_encode(frame)["train"]) == []


def test_auc_is_that_of_scikit_learn() -> None:
    score = np.round(RNG.normal(size=N) + Y, 1)
    assert auc(Y, score) == pytest.approx(roc_auc_score(Y, score), abs=1e-12)


def test_description_is_one_line() -> None:
    assert describe_leaks(["a", "b"]).startswith("'a', 'b': ")
