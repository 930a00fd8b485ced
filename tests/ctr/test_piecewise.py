"""Curves of numeric fields: what the equation says, beside fields of other kinds, and what they learn."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch

from graphrec import CTRClassifier
from graphrec.ctr.embedding import FusedEmbedding
from graphrec.pipelines.tables import TableSchema
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field

SPEC = FeatureSpec(
    (
        Field("a", "numeric", knots=5, centre=2),
        Field("b", "numeric"),
        Field("c", "numeric", knots=2),
        Field("item", "categorical", size=4),
        Field("constant", "numeric", knots=1),
        Field("d", "numeric", knots=4, centre=3),
    )
)


def batch(rows: int = 9) -> Features:
    torch.manual_seed(1)
    last = torch.tensor([max(f.knots - 1, 0) or 1 for f in SPEC.numeric])
    numeric = torch.rand(rows, len(SPEC.numeric)) * last
    numeric[:, 3] = 0.0
    numeric[0], numeric[1], numeric[2] = 0.0, torch.tensor([4.0, -1.5, 1.0, 0.0, 3.0]), math.nan
    return Features(torch.randint(0, 4, (rows, 1), dtype=torch.int32), numeric)


def expected(embedding: FusedEmbedding, features: Features, field: str) -> torch.Tensor:
    """One field by a loop over rows: the central knot's vector and the steps from there to the position."""
    number = [f.name for f in SPEC.numeric].index(field)
    curve = [f.name for f in SPEC.numeric if f.knots].index(field)
    rows = []
    for position in features.numeric[:, number].tolist():
        if math.isnan(position):
            rows.append(embedding.numeric_missing[number])
            continue
        vector = embedding.numeric_weight[number]
        for k in range(SPEC.numeric[number].knots - 1):
            covered = min(max(position - k, 0.0), 1.0) - (k < SPEC.numeric[number].centre)
            vector = vector + covered * embedding.numeric_steps[curve, k]
        rows.append(vector)
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curves_follow_their_equation(dtype: torch.dtype) -> None:
    embedding, features = FusedEmbedding(SPEC, 3, init_std=1.0).to(dtype), batch()
    features = features._replace(numeric=features.numeric.to(dtype))
    out = embedding(features)
    names = [f.name for f in SPEC.fields]
    wanted = {f.name: expected(embedding, features, f.name) for f in SPEC.numeric if f.knots}
    for name, vectors in wanted.items():
        torch.testing.assert_close(out[:, names.index(name)], vectors)
    scaled = features.numeric[:, 1:2] * embedding.numeric_weight[1]
    scaled[2] = embedding.numeric_missing[1]
    torch.testing.assert_close(out[:, names.index("b")], scaled)
    kept = [embedding.numeric_weight, embedding.numeric_missing, embedding.numeric_steps]
    grad = torch.randn_like(out[:, 0])
    pairs = (
        [(out[:, names.index(n)] * grad).sum() for n in wanted],
        [(v * grad).sum() for v in wanted.values()],
    )
    for mine, reference in zip(
        *(torch.autograd.grad(sum(p), kept, retain_graph=True) for p in pairs), strict=True
    ):
        torch.testing.assert_close(mine, reference)


def test_the_prior_holds_each_step_once_per_pass() -> None:
    embedding, features = FusedEmbedding(SPEC, 3), batch(8)
    embedding.regularise({"item": torch.ones(4)}, 0.7, rows=40)
    total = torch.zeros_like(embedding.numeric_steps)
    for _ in range(5):  # five batches of eight rows
        embedding.numeric_steps.grad = None
        (0.0 * embedding(features)).sum().backward()
        total += 8 * embedding.numeric_steps.grad
    torch.testing.assert_close(total, 0.7 * embedding.numeric_steps.detach())
    embedding.regularise({"item": torch.ones(4)}, 0.7)
    embedding.numeric_steps.grad = None
    (0.0 * embedding(features)).sum().backward()
    assert not embedding.numeric_steps.grad.any()


@pytest.fixture(scope="module")
def hills() -> pl.DataFrame:
    """Clicks are likely in the middle of ``x`` and at 0 of ``y``, which half of the rows have; no trend."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=6000), np.where(draw.random(6000) < 0.5, 0.0, draw.normal(size=6000) * 1e4)
    odds = 3.0 * (np.abs(x) < 0.6) + 3.0 * (y == 0) - 3.0
    return pl.DataFrame({"x": x, "y": y, "click": (draw.random(6000) < 1 / (1 + np.exp(-odds))).astype(int)})


def test_a_linear_model_learns_a_hill(hills: pl.DataFrame) -> None:
    auc = {}
    for transform in ("piecewise", "standard"):
        schema = TableSchema.infer(hills, label="click")
        for name in ("x", "y"):
            schema = schema.replace(name, transform=transform)
        fitted = CTRClassifier("lr", schema=schema, epochs=20, learning_rate=0.02, random_state=0).fit(hills)
        auc[transform] = fitted.metrics_["valid"]["auc"]
    assert auc["piecewise"] > 0.82
    assert auc["standard"] < 0.65


def test_the_default_saves_loads_and_explains(hills: pl.DataFrame, tmp_path) -> None:
    fitted = CTRClassifier("fm", epochs=3, random_state=0).fit(hills, label="click")
    assert [f.knots > 2 for f in fitted.encoder_.spec.numeric] == [True, True]
    fitted.save(tmp_path / "run")
    new = pl.DataFrame({"x": [math.nan, math.inf, -1e30, None], "y": [0.0, 1.0, None, -math.inf]})
    again = CTRClassifier.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict_proba(new), fitted.predict_proba(new))
    assert np.isfinite(again.predict_proba(new)).all()
