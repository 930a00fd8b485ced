"""Knots of ``transform: piecewise``: where they lie, what positions come out, what a saved encoder keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphrec.pipelines.tables import EncodedTable, FieldKind, Split, TableEncoder, TableSchema
from graphrec.pipelines.tables.transforms import Knots

DRAW = np.random.default_rng(0)


def fit(values: np.ndarray | list, bins: int = 8) -> tuple[TableEncoder, EncodedTable, np.ndarray]:
    frame = pl.DataFrame({"v": values, "y": [i % 2 for i in range(len(values))]}, strict=False)
    schema = TableSchema.infer(frame, "y", roles={"v": "numeric"}).replace("v", bins=bins)
    encoder = TableEncoder(schema)
    part = encoder.fit_encode(frame, Split.random(valid=0.0, test=0.0))["train"]
    return encoder, part, encoder.encode(frame).read(0, len(values)).features.numeric[:, 0].numpy()


def knots(values: np.ndarray, bins: int) -> np.ndarray:
    found = Knots(bins)
    found.observe(found.raw(np.asarray(values, np.float64)))
    found.finish()
    return found.knots + found.pivot


def test_rows_divide_evenly() -> None:
    values = DRAW.lognormal(0, 2, 4000)
    encoder, _, positions = fit(values)
    field = encoder.spec.fields[0]
    assert (field.kind, field.knots) == (FieldKind.NUMERIC, 9)
    assert positions.dtype == np.float32
    assert positions.min() == 0
    assert positions.max() == 8
    assert np.all(np.abs(np.histogram(positions, 8)[0] - 500) <= 2)
    order = np.argsort(values)
    assert np.all(np.diff(positions[order]) >= 0)


def test_positions_are_linear_between_knots() -> None:
    encoder, _, positions = fit(np.repeat([0.0, 10.0, 14.0, 100.0], 50), bins=4)
    assert sorted(set(positions.tolist())) == [0, 1, 2, 3]
    between = encoder.encode(pl.DataFrame({"v": [5.0, 12.0, 57.0, -1.0, 200.0]})).read(0, 5).features.numeric
    np.testing.assert_allclose(between[:, 0].numpy(), [0.5, 1.5, 2.5, 0.0, 3.0], atol=1e-6)


def test_a_frequent_value_leaves_knots_for_the_rest() -> None:
    gains = np.where(DRAW.random(5000) < 0.92, 0.0, DRAW.lognormal(8, 1, 5000))
    found = knots(gains, 8)
    assert found[0] == 0
    assert len(found) == 9
    assert np.all(found[1:] > 0)
    np.testing.assert_allclose(found[1:], np.quantile(gains[gains > 0], np.arange(8) / 7), rtol=1e-6)


def test_large_numbers_keep_their_differences() -> None:
    values = 1_700_000_000.0 + np.arange(100)
    np.testing.assert_allclose(fit(values, bins=2)[2], np.arange(100) / 99 * 2, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([3.0] * 20, [0.0] * 20),
        ([None] * 20, [np.nan] * 20),
        ([0.0, 1.0] * 10, [0.0, 1.0] * 10),
        ([1.0, np.inf, -np.inf, np.nan, 2.0, None], [0.0, 1.0, 0.0, np.nan, 1.0, np.nan]),
    ],
    ids=["constant", "null", "binary", "not finite"],
)
def test_few_values(values: list, wanted: list) -> None:
    np.testing.assert_allclose(fit(values)[2], wanted)


def test_saving_keeps_them(tmp_path: Path) -> None:
    encoder, part, positions = fit(DRAW.normal(size=300).astype(np.float32))
    encoder.save(tmp_path / "encoder")
    loaded = TableEncoder.load(tmp_path / "encoder")
    assert loaded.spec == encoder.spec
    new = pl.DataFrame({"v": [-9.0, 0.0, 0.3, 9.0]})
    got, kept = (e.encode(new).read(0, 4).features.numeric.numpy() for e in (loaded, encoder))
    np.testing.assert_array_equal(got, kept)
    assert sorted(part.read(0, 300).features.numeric[:, 0].tolist()) == sorted(positions.tolist())


def test_few_rows_get_fewer_knots() -> None:
    assert fit(DRAW.normal(size=300))[0].spec.fields[0].knots == 7
    assert fit(DRAW.normal(size=40))[0].spec.fields[0].knots == 3


@pytest.mark.parametrize(("zeros", "centre"), [(0.0, 4), (0.8, 0)])
def test_the_centre_is_the_median(zeros: float, centre: int, tmp_path: Path) -> None:
    values = np.where(DRAW.random(4000) < zeros, 0.0, DRAW.lognormal(0, 1, 4000))
    encoder = fit(values)[0]
    assert encoder.spec.fields[0].centre == centre
    encoder.save(tmp_path / "encoder")
    assert TableEncoder.load(tmp_path / "encoder").spec == encoder.spec
