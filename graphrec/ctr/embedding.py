"""One embedding table for all fields of a table, with gradients for the touched rows only.

A step costs what its batch touches: the forward pass is one gather, the backward pass sums the gradients of
equal ids and hands the optimiser a sparse tensor with one entry per distinct row
(see `graphrec.training.sparse`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.pipelines.tables.features import Features, FeatureSpec, Field, FieldKind
from graphrec.training.huge_pages import empty_table, in_huge_pages

from .flat_fields import FlatFields, NumericVectors
from .piecewise import piecewise_vectors, with_prior
from .row_gather import gather_sparse

LOG_ODDS_PRIOR = 0.1
"""`prior` of tables of log-odds: with the default precision a deviation of 0.5."""


class FusedEmbedding(nn.Module):
    """Embeds every field of a `FeatureSpec` into vectors of one width.

    Categorical fields look up a row; numeric fields scale one learned vector by the value (AutoInt, Song et
    al. 2019, eq. 4), or with `knots` follow a learned curve (see `piecewise`), and use another learned
    vector where the value is missing; list fields are pooled over their real items, and an empty list is the
    zero vector. Fields with the same ``vocabulary`` share rows.
    A field with ``quotient`` is embedded as the product of a remainder row and a quotient row
    (Shi et al. 2020, arXiv 1909.02107, eq. 5).

    Args:
        spec: The fields.
        dim: Embedding width d.
        sparse: Give ``weight`` sparse gradients. With False it is an ordinary parameter.
        init_std: Standard deviation of the normal initialisation.
        sequences: Include sequence fields (mean-pooled) in the output of `forward`; models that attend over
            them pass False and use `sequence`.
        prior: Factor on the precision given to `regularise`; weights that are log-odds themselves need a
            wider prior than vectors that are multiplied with others.

    Shapes:
        - ``weight``: (rows of all vocabularies, d)
        - output: (B, F, d), in the order of `fields`
    """

    _categorical_offsets: Tensor
    _centres: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        dim: int,
        *,
        sparse: bool = True,
        init_std: float = 0.01,
        sequences: bool = True,
        prior: float = 1.0,
    ) -> None:
        super().__init__()
        self.spec, self.dim, self.sparse, self.init_std, self.prior = spec, dim, sparse, init_std, prior
        self.fields = tuple(f for f in spec.fields if sequences or f.kind is not FieldKind.SEQUENCE)
        """The fields of the output, in order."""
        self._offsets, rows = _layout(spec)
        self.weight = nn.Parameter(empty_table(rows, dim, like=torch.empty(0)))
        self.weight.sparse_rows = sparse  # type: ignore[attr-defined]
        numeric = len(spec.numeric)
        self.numeric_weight = nn.Parameter(torch.empty(numeric, dim)) if numeric else None
        self.numeric_missing = nn.Parameter(torch.empty(numeric, dim)) if numeric else None
        knots = [f.knots for f in spec.numeric if f.knots]
        steps = torch.empty(len(knots), max(2, *knots) - 1, dim) if knots else None
        self.numeric_steps = None if steps is None else nn.Parameter(steps)
        """(numeric fields with knots, most knots - 1, d): see `piecewise_vectors`."""
        centres = torch.tensor([f.centre for f in spec.numeric if f.knots], dtype=torch.int64)
        self.register_buffer("_centres", centres, persistent=False)
        offsets = [self._offsets[f.vocabulary] for f in spec.categorical]
        self.register_buffer(
            "_categorical_offsets", torch.tensor(offsets, dtype=torch.int32), persistent=False
        )
        self._decay: Tensor | None
        self._steps_pull = 0.0
        self.register_buffer("_decay", None, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw vectors from N(0, init_std), quotient rows from N(1, init_std): products keep the scale."""
        with torch.no_grad():
            self.weight.normal_(0.0, self.init_std)
            for field in self._quotient_fields:
                start = self._offsets[field.vocabulary] + field.quotient
                self.weight[start : start + -(-field.size // field.quotient)] += 1.0
            for weight in (self.numeric_weight, self.numeric_missing, self.numeric_steps):
                if weight is not None:
                    weight.normal_(0.0, self.init_std)

    def regularise(self, counts: Mapping[str, Any], l2: float, rows: int = 0) -> None:
        """Pull each row towards zero in inverse proportion to how often it occurs.

        The penalty ``l2 / 2 * ||row||^2`` (``l2`` times `prior`, if that is not 1), a Gaussian prior of
        variance ``1 / l2`` against the sum of the losses, is spread evenly over the row's occurrences in the
        training data, so one pass over the data applies it once to each row and a step still costs what its
        batch touches. Ids that occur twice are held near zero, ids that occur a million times are free:
        without this, deep CTR models over-fit from their second epoch on. ``weight`` is pulled only with
        sparse gradients. With ``rows`` the same prior holds the steps of curves (``numeric_steps``), which
        every row touches; no other parameter is pulled.

        Args:
            counts: For each vocabulary, how often each id occurs in the training data, (size,).
            l2: The prior's precision; 0 turns it off.
            rows: Training rows; 0 leaves curves without a prior.

        Raises:
            ConfigError: ``l2`` is negative, or a vocabulary has no counts, or counts of another size.
        """
        if l2 < 0:
            raise ConfigError(f"embedding_l2: {l2} is negative; use 0 for none, or a positive number")
        pull = self.prior * l2 / self._row_counts(counts).clamp(min=1.0) if l2 else None
        self._decay = None if pull is None else in_huge_pages(pull)
        self._steps_pull = self.prior * l2 / rows if rows else 0.0

    def _row_counts(self, counts: Mapping[str, Any]) -> Tensor:
        total = torch.zeros(len(self.weight), device=self.weight.device)
        fields = {f.vocabulary: f for f in self.spec.fields if f.kind is not FieldKind.NUMERIC}
        for name, field in fields.items():
            size = max(f.size for f in self.spec.fields if f.vocabulary == name)
            found = torch.as_tensor(counts[name]).to(total) if name in counts else total.new_empty(0)
            if found.shape != (size,):
                raise ConfigError(f"counts: {name!r} needs {size} numbers, one per id, got {len(found)}")
            for rows in self._index(field, torch.arange(size, device=total.device)):
                total.index_add_(0, rows, found)
        return total

    def extra_repr(self) -> str:
        return f"fields={len(self.fields)}, rows={self.weight.shape[0]}, dim={self.dim}, sparse={self.sparse}"

    def rows(self, field: Field) -> slice:
        """The rows of ``weight`` that hold a field's vocabulary."""
        start = self._offsets[field.vocabulary]
        return slice(start, start + _rows_of(field))

    def forward(self, features: Features) -> Tensor:
        """Embed a batch: (B, F, d)."""
        return self.flat(features).vectors

    def flat(self, features: Features) -> FlatFields:
        """The same vectors side by side, for networks that map them linearly first."""
        return FlatFields(self._pieces(features), self.dim)

    def _pieces(self, features: Features) -> list[Tensor | NumericVectors]:
        """Vectors of consecutive fields, in the order of `fields`."""
        categorical, lists = self._lookup(features)
        pooled = {
            f.name: _pool(vectors, ids != 0, f.pooling if f.kind is FieldKind.MULTI else "mean")
            for f, vectors, ids in zip(self.spec.lists, lists, features.lists, strict=True)
            if f in self.fields
        }
        pieces: list[Tensor | NumericVectors] = []
        taken = {FieldKind.CATEGORICAL: 0, FieldKind.NUMERIC: 0}
        for (kind, curved), run in groupby(self.fields, key=lambda f: (f.kind, f.knots > 0)):
            members = list(run)
            if kind not in taken:
                pieces += [pooled[f.name][:, None] for f in members]
                continue
            columns = slice(taken[kind], taken[kind] + len(members))  # as consecutive as the fields
            taken[kind] = columns.stop
            if curved:
                pieces.append(self._curved(features.numeric, columns))
            elif kind is FieldKind.NUMERIC:
                pieces.append(self._numeric(features.numeric, columns))
            else:
                pieces.append(categorical[:, columns])
        return pieces

    def sequence(self, features: Features, position: int) -> tuple[Tensor, Tensor]:
        """Items (B, L, d) of the list field ``spec.lists[position]``, and which are real, (B, L) bool."""
        field, ids = self.spec.lists[position], features.lists[position]
        vectors = self._embed_ids(field, ids.reshape(-1), ids.shape[0]).view(*ids.shape, self.dim)
        return vectors, ids != 0

    def field_vector(self, features: Features, name: str) -> Tensor:
        """The vector of one categorical field, (B, d)."""
        position = [f.name for f in self.spec.categorical].index(name)
        ids = features.categorical[:, position]
        return self._embed_ids(self.spec.categorical[position], ids, ids.shape[0])

    @property
    def _quotient_fields(self) -> list[Field]:
        return [f for f in self.spec.fields if f.quotient]

    def _gather(self, index: Tensor, n_rows: int) -> Tensor:
        """Rows of ``weight``; ``n_rows`` is the batch size B, over which the loss is a mean."""
        if self.sparse and torch.is_grad_enabled() and self.weight.requires_grad:
            return gather_sparse(self.weight, index, self._decay, 1.0 / max(n_rows, 1))
        return self.weight.index_select(0, index)

    def _index(self, field: Field, ids: Tensor) -> list[Tensor]:
        """Row numbers of a field's ids: one vector, or two for quotient-remainder."""
        start = self._offsets[field.vocabulary]
        if not field.quotient:
            return [ids + start]
        return [ids % field.quotient + start, ids // field.quotient + (start + field.quotient)]

    def _embed_ids(self, field: Field, ids: Tensor, n_rows: int) -> Tensor:
        parts = self._gather(torch.cat(self._index(field, ids)), n_rows).view(-1, ids.shape[0], self.dim)
        return parts[0] if len(parts) == 1 else parts[0] * parts[1]

    def _lookup(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        """Categorical vectors (B, C, d) and those of each list field (B, L, d), by a single gather."""
        if self._quotient_fields:
            return self._lookup_by_field(features)
        ids = features.categorical + self._categorical_offsets
        used = [f in self.fields for f in self.spec.lists]
        index = [ids.reshape(-1)]
        for field, items, wanted in zip(self.spec.lists, features.lists, used, strict=True):
            if wanted:
                index.append(items.reshape(-1) + self._offsets[field.vocabulary])
        vectors = self._gather(index[0] if len(index) == 1 else torch.cat(index), ids.shape[0])
        parts = iter(vectors.split([i.shape[0] for i in index]))
        categorical = next(parts).view(*ids.shape, self.dim)
        lists = [
            next(parts).view(*items.shape, self.dim) if wanted else vectors
            for items, wanted in zip(features.lists, used, strict=True)
        ]
        return categorical, lists

    def _lookup_by_field(self, features: Features) -> tuple[Tensor, list[Tensor]]:
        columns = [
            self._embed_ids(f, features.categorical[:, i], features.categorical.shape[0])
            for i, f in enumerate(self.spec.categorical)
        ]
        shape = (features.categorical.shape[0], 0, self.dim)
        categorical = torch.stack(columns, dim=1) if columns else self.weight.new_empty(shape)
        lists = [self.sequence(features, i)[0] for i in range(len(self.spec.lists))]
        return categorical, lists

    def _numeric(self, values: Tensor, columns: slice) -> NumericVectors:
        assert self.numeric_weight is not None
        assert self.numeric_missing is not None
        return NumericVectors.of(
            values[:, columns], self.numeric_weight[columns], self.numeric_missing[columns]
        )

    def _curved(self, values: Tensor, columns: slice) -> Tensor:
        assert self.numeric_weight is not None
        assert self.numeric_missing is not None
        assert self.numeric_steps is not None
        before = sum(f.knots > 0 for f in self.spec.numeric[: columns.start])
        curves = slice(before, before + columns.stop - columns.start)
        steps = self.numeric_steps[curves]
        if self._steps_pull:
            steps = with_prior(steps, self._steps_pull)
        weights = self.numeric_weight[columns], self.numeric_missing[columns]
        return piecewise_vectors(values[:, columns], steps, *weights, self._centres[curves])


def _rows_of(field: Field) -> int:
    if not field.quotient:
        return field.size
    return field.quotient + -(-field.size // field.quotient)


def _layout(spec: FeatureSpec) -> tuple[dict[str, int], int]:
    """First row of each vocabulary, and all rows; a shared one is as large as its largest user."""
    sizes: dict[str, int] = {}
    for field in spec.fields:
        if field.kind is not FieldKind.NUMERIC:
            sizes[field.vocabulary] = max(sizes.get(field.vocabulary, 0), _rows_of(field))
    offsets, total = {}, 0
    for name, size in sizes.items():
        offsets[name], total = total, total + size
    return offsets, total


def _pool(vectors: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool (B, L, d) over the items where mask (B, L) is true; rows without items give zeros."""
    if vectors.shape[1] == 0:
        return vectors.new_zeros(vectors.shape[0], vectors.shape[2])
    if pooling == "max":
        top = vectors.masked_fill(~mask[..., None], float("-inf")).amax(1)
        return top.masked_fill(~mask.any(1, keepdim=True), 0.0)
    weights = mask.to(vectors.dtype)
    total = torch.einsum("bld,bl->bd", vectors, weights)
    return total / weights.sum(1, keepdim=True).clamp(min=1.0) if pooling == "mean" else total
