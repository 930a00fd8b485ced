"""Using a fitted estimator: probabilities, metrics and explanations of any table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import ConfigError
from graphrec.explain import Explanation, explain_model, sample_batch
from graphrec.metrics.growing import GrowingArray, collect
from graphrec.pipelines.tables import Batch, Features, Table, open_table

from . import arrays
from .fitting import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .classifier import CTRClassifier

BATCH = 2048
"""Rows per forward pass when predicting: more take more memory and no less time."""


def table_of(estimator: CTRClassifier, X: Any) -> Table:
    """X as a table; arrays, and frames of an estimator that was fitted on X and y, pass scikit-learn's
    checks.
    """
    if isinstance(X, Table):
        return X
    if arrays.is_array(X) or (estimator.from_arrays_ and arrays.is_frame(X)):
        return open_table(arrays.features_frame(estimator, X, reset=False))
    return open_table(X)


def labelled_table(estimator: CTRClassifier, X: Any, y: Any) -> Table:
    """X with the label columns that the schema names: X's own, or those of y in the schema's values.

    Raises:
        DataError: y has other values than those fitted on, or not one for each row of X.
    """
    if y is None:
        return table_of(estimator, X)
    import polars as pl

    opened = table_of(estimator, X)
    frame = opened.collect(opened.lazy)
    positive = arrays.encode_targets(y, estimator._classes, len(frame))
    schema = estimator.schema_
    columns = []
    for t, name in enumerate(schema.labels):
        pair = pl.Series(name, schema[name].classes or (0, 1))
        columns.append(pair.gather(positive[:, t].astype(np.uint32)))
    if schema.weight and schema.weight not in frame.columns:
        columns.append(pl.Series(schema.weight, np.ones(len(frame))))
    return open_table(frame.with_columns(columns))


def score_batches(
    estimator: CTRClassifier, table: Table, *, labels: bool = False
) -> Iterator[tuple[Batch, Any]]:
    """Each batch of a table, in the order of its rows, with its probabilities (B, T) as a numpy array."""
    import torch

    from graphrec.training.placement import place

    device, module = _device(estimator), estimator.module_.eval()
    place(module, torch.device(device))
    try:
        with torch.inference_mode():
            for batch in estimator.encoder_.batches(table, batch_size=BATCH, require_labels=labels or None):
                yield batch, module.predict(_move(batch, device)).float().cpu().numpy()
    finally:
        place(module, torch.device("cpu"))


def predict_table(estimator: CTRClassifier, X: Any) -> NDArray[np.float64]:
    """Probabilities of the positive values, (N, T)."""
    scores, _ = collect(p for _, p in score_batches(estimator, table_of(estimator, X)))
    if scores is None:
        return np.zeros((0, len(estimator.schema_.labels)))
    return scores.astype(np.float64)


def evaluate_table(estimator: CTRClassifier, X: Any, y: Any = None, sample_weight: Any = None) -> Predictions:
    """Labels beside probabilities, of a table with its label columns or of X and y.

    Raises:
        ConfigError: Weights are given without y; a table has its own.
    """
    if y is None and sample_weight is not None:
        raise ConfigError("sample_weight: goes with y; a table is weighted by the column that fit was given")
    table = labelled_table(estimator, X, y)
    estimator.schema_.check(table, require_labels=True)
    found: dict[str, GrowingArray] = defaultdict(GrowingArray)
    for batch, scores in score_batches(estimator, table, labels=True):  # whose features are not kept
        found["scores"].append(scores)
        for name, values in (("labels", batch.labels), ("weights", batch.weights), ("groups", batch.groups)):
            if values is not None:
                found[name].append(values.numpy())
    known = {name: rows.array for name, rows in found.items()}
    weights = known.get("weights")
    if sample_weight is not None:
        weights = arrays.check_weights(sample_weight, len(known["labels"]))
    return Predictions("given", known["labels"], known["scores"], weights, known.get("groups"))


def explain_table(
    estimator: CTRClassifier, X: Any, y: Any = None, *, rows: int, repeats: int, seed: int
) -> Explanation:
    """`explain_model` on a sample of the rows."""
    encoded = estimator.encoder_.encode(labelled_table(estimator, X, y), require_labels=True)
    batch = sample_batch(encoded, rows, seed)
    name = estimator._asked["model"]
    return explain_model(estimator.module_, batch, model=name, repeats=repeats, seed=seed)


def _device(estimator: CTRClassifier) -> str:
    import torch

    wanted = estimator.accelerator or "auto"
    return "cuda" if wanted in ("auto", "cuda", "gpu") and torch.cuda.is_available() else "cpu"


def _move(batch: Batch, device: str) -> Batch:
    if device == "cpu":
        return batch
    features = batch.features
    moved = Features(
        features.categorical.to(device),
        features.numeric.to(device),
        tuple(v.to(device) for v in features.lists),
    )
    return Batch(moved, batch.labels.to(device))
