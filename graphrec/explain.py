"""Which fields a fitted CTR model uses, and which pairs of fields it combines.

Importance of a field is permutation importance (Breiman, 2001; Fisher et al., 2019, arXiv 1801.01489): how
much AUC is lost when the field's values are shuffled between rows, so that it tells nothing any more but
keeps its distribution. It needs no assumption about the model. Importance of a pair is what the model itself
says, where it has such a quantity: attention between fields (AutoInt), weights of the cross layers per pair
(FCN, DCNv2) and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import DataError
from graphrec.metrics import roc_auc
from graphrec.pipelines.tables.features import Batch, Features, Field, FieldKind
from graphrec.training.arguments import check_whole

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from graphrec.ctr.base import CTRModel

ROWS = 20_000
"""Rows that an explanation looks at by default; more change the third decimal of an AUC drop."""

DRAWN = 100
"""Fields of the heat map at most, those with the strongest pairs; the table has all."""


@dataclass(frozen=True)
class Explanation:
    """What a model looks at.

    Attributes:
        model: Name of the model.
        importance: One row per field, most important first: ``field``, ``auc_drop`` (mean over the repeats)
            and ``std`` (between repeats). Several labels: the mean drop over labels.
        pairs: One row per pair of different fields, strongest first: ``field``, ``other``, ``strength``;
            empty for a model without pairs.
        fields: Names of the rows and columns of ``matrix``.
        matrix: (F, F) not negative; row i column j is how much field i takes from field j. None without
            pairs.
        auc: AUC on the rows before anything was shuffled; None where it is undefined.
        rows: Number of rows looked at.
    """

    model: str
    importance: pl.DataFrame
    pairs: pl.DataFrame
    fields: tuple[str, ...]
    matrix: NDArray[np.float64] | None
    auc: float | None
    rows: int

    def plot(self, folder: str | Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
        """Draw ``importance``, where AUC is defined, and ``interactions``, where there are pairs.

        Returns:
            The files written.
        """
        from graphrec.report import plots
        from graphrec.report.pictures import strongest_fields

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        drops = self.importance.drop_nulls()
        figures = {}
        if len(drops):
            values = drops["field"].to_list(), drops["auc_drop"].to_list()
            figures["importance"] = plots.plot_importance(*values, "AUC lost")
        if self.matrix is not None and len(self.fields) > 1:
            drawn = strongest_fields(self.matrix, self.fields, DRAWN)
            part = f" (the strongest {DRAWN} of {len(self.fields):,} fields)"
            title = "strength" + (part if len(self.fields) > DRAWN else "")
            figures["interactions"] = plots.plot_interactions(*drawn, title)
        files = []
        for name, figure in figures.items():
            for suffix in formats:
                files.append(folder / f"{name}.{suffix}")
                figure.savefig(files[-1], dpi=150, bbox_inches="tight", facecolor="white")
        return files

    def write(self, folder: str | Path) -> list[Path]:
        """The data frames as ``importance.csv`` and ``interactions.csv``, and the pictures of `plot`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "importance.csv"]
        self.importance.write_csv(files[0])
        if self.matrix is not None and len(self.fields) > 1:
            files.append(folder / "interactions.csv")
            self.pairs.write_csv(files[-1])
        return files + self.plot(folder)


def explain_model(
    module: CTRModel, batch: Batch, *, model: str = "", repeats: int = 3, seed: int = 0, chunk: int = 8192
) -> Explanation:
    """Explain a model on the rows of one batch.

    Args:
        module: A fitted CTR model with ``spec``, ``predict`` and ``field_interactions``.
        batch: Rows with labels, such as a sample of the validation part.
        model: Name to print.
        repeats: How often each field is shuffled.
        seed: Seed of the shuffles.
        chunk: Rows per forward pass.

    Raises:
        DataError: There are no rows.
        ConfigError: `repeats` is no whole number from 1 up.
    """
    import polars as pl

    rows = len(batch.labels)
    if not rows:
        raise DataError("explain: the table has no rows; give some with labels")
    check_whole("repeats", repeats)
    base = _mean_auc(batch, _predict(module, batch, chunk))
    drops = permutation_drops(module, batch, base, repeats=repeats, seed=seed, chunk=chunk)
    importance = pl.DataFrame(
        [{"field": f, "auc_drop": _mean(d), "std": float(np.std(d)) if base is not None else None}
         for f, d in drops.items()],
        schema={"field": pl.String, "auc_drop": pl.Float64, "std": pl.Float64},
    ).sort("auc_drop", descending=True, nulls_last=True, maintain_order=True)  # fmt: skip
    matrix = interaction_matrix(module, batch, chunk)
    names = tuple(f.name for f in module.spec.fields)
    return Explanation(model, importance, _pairs(matrix, names), names, matrix, base, rows)


def permutation_drops(
    module: CTRModel, batch: Batch, base: float | None, *, repeats: int, seed: int, chunk: int
) -> dict[str, list[float]]:
    """AUC lost by shuffling each field, once per repeat; empty lists where AUC is undefined."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(batch.labels), generator=generator) for _ in range(repeats)]
    drops: dict[str, list[float]] = {f.name: [] for f in module.spec.fields}
    if base is None:
        return drops
    for field, place in zip(module.spec.fields, _places(module.spec.fields), strict=True):
        for order in orders:
            shuffled = batch._replace(features=_shuffle(batch.features, field.kind, place, order))
            drops[field.name].append(base - (_mean_auc(batch, _predict(module, shuffled, chunk)) or 0.0))
    return drops


def interaction_matrix(module: CTRModel, batch: Batch, chunk: int = 8192) -> NDArray[np.float64] | None:
    """Mean of ``module.field_interactions`` over the rows: (F, F), or None when the model has none."""
    import torch

    total, rows = None, 0
    with torch.inference_mode():
        for part in _chunks(batch, chunk):
            pairs = module.field_interactions(part.features)
            if pairs is None:
                return None
            n = len(part.labels)
            total = pairs.double() * n if total is None else total + pairs.double() * n
            rows += n
    return None if total is None else np.asarray((total / rows).cpu().numpy())


def sample_batch(encoded: Any, rows: int = ROWS, seed: int = 0) -> Batch:
    """At most ``rows`` rows of an encoded table, drawn without replacement, in their order."""
    if len(encoded) <= rows:
        return encoded.read(0, len(encoded))
    chosen = np.random.default_rng(seed).choice(len(encoded), size=rows, replace=False)
    return encoded.take(np.sort(chosen))


def _places(fields: Sequence[Field]) -> list[int]:
    """Column of each field among the fields that share its part of `Features`."""
    seen: dict[str, int] = {}
    places = []
    for field in fields:
        part = "list" if field.kind in (FieldKind.SEQUENCE, FieldKind.MULTI) else str(field.kind)
        places.append(seen.get(part, 0))
        seen[part] = places[-1] + 1
    return places


def _shuffle(features: Features, kind: FieldKind, place: int, order: Any) -> Features:
    """The features with one field's values in another order."""
    if kind in (FieldKind.SEQUENCE, FieldKind.MULTI):
        lists = list(features.lists)
        lists[place] = lists[place][order]
        return features._replace(lists=tuple(lists))
    part = "categorical" if kind is FieldKind.CATEGORICAL else "numeric"
    columns = getattr(features, part).clone()
    columns[:, place] = columns[order, place]
    return features._replace(**{part: columns})


def _chunks(batch: Batch, chunk: int) -> Iterator[Batch]:
    for start in range(0, len(batch.labels), chunk):
        rows = slice(start, start + chunk)
        features = Features(
            batch.features.categorical[rows],
            batch.features.numeric[rows],
            tuple(v[rows] for v in batch.features.lists),
        )
        yield Batch(features, batch.labels[rows])


def _predict(module: CTRModel, batch: Batch, chunk: int) -> NDArray[np.float32]:
    import torch

    module.eval()
    with torch.inference_mode():
        return np.concatenate([module.predict(part).float().numpy() for part in _chunks(batch, chunk)])


def _mean_auc(batch: Batch, p: NDArray[np.float32]) -> float | None:
    weights = None if batch.weights is None else batch.weights.numpy()
    scores = [roc_auc(batch.labels[:, t].numpy(), p[:, t], weights) for t in range(p.shape[1])]
    known = [s for s in scores if s is not None]
    return float(np.mean(known)) if known else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _pairs(matrix: NDArray[np.float64] | None, names: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    schema = {"field": pl.String, "other": pl.String, "strength": pl.Float64}
    if matrix is None:
        return pl.DataFrame(schema=schema)
    rows = [(a, b, float(matrix[i, j])) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    return pl.DataFrame(rows, schema=schema, orient="row").sort(
        "strength", descending=True, maintain_order=True
    )
