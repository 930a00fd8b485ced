"""The encoder: from a table and its schema to ids and floats, fitted on the training rows in one pass.

The first pass factorises every batch (a parquet dictionary page already is), so that strings are hashed once
per distinct value of a batch, and spills provisional codes. The second turns them into ids by table look-up
and writes the shards. Memory does not grow with the number of rows, only with the vocabularies.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import DataError, RunError, SchemaError

from ..folder_cache import publish, room_in, scratch, touch
from . import cache as _cache
from .checks import check_both_classes, label_classes
from .coders import CategoryCoder, Coder, ListCoder
from .features import Batch, FeatureSpec, FieldKind
from .number_coders import BucketCoder, NumericCoder, PartCoder
from .opening import open_table
from .rows import Classes, interleave, rebatch, spill_parts
from .schema import Role, TableSchema
from .shards import Block, EncodedTable, ShardWriter
from .sources import BATCH_ROWS
from .spill import Spill
from .splits import PART_NAMES, TRAIN, Split
from .targets import Targets
from .vocabulary import Codebook, HashedVocabulary, VocabularyBuilder

if TYPE_CHECKING:
    import pyarrow as pa

    from .sources import Table

_BLOCK_IDS = 1 << 23
"""Ids and numbers of the rows that are encoded at once for predictions: long lists get fewer rows."""

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in total."""


class TableEncoder:
    """Learns vocabularies and scales from training rows, then encodes any table of the schema.

    Args:
        schema: Roles and options of the columns.
    """

    def __init__(self, schema: TableSchema) -> None:
        if not schema.features:
            raise SchemaError("the schema has no feature column; give at least one column a feature role")
        self.schema = schema
        self.coders: list[Coder] = []
        self._fitted = False

    @property
    def spec(self) -> FeatureSpec:
        """Fields and labels as a model sees them."""
        self._require_fitted()
        return FeatureSpec(tuple(c.field() for c in self.coders), self.schema.labels)

    def counts(self) -> dict[str, np.ndarray]:
        """Training rows by id, (size,) int64, for each vocabulary."""
        return {c.field().vocabulary: c.counts() for c in self.coders if c.field().size}

    def fit_encode(
        self,
        table: Any,
        split: Split | None = None,
        cache_dir: str | Path | None = None,
        progress: Progress | None = None,
    ) -> dict[str, EncodedTable]:
        """Fit on the training rows and encode all parts.

        Files are encoded once: unchanged data, schema and split find their shards again. Rows in memory are
        cached only where ``cache_dir`` says; their shards vanish with the tables otherwise.

        Args:
            table: Anything that `open_table` takes.
            split: How to divide it; all rows train by default.
            cache_dir: Folder of the cache; the user's cache folder by default.
            progress: Called after each batch.

        Returns:
            ``"train"``, ``"valid"`` and ``"test"``, as far as they have rows.

        Raises:
            SchemaError, DataError: See `TableSchema.check`; the training part has one class only, or no rows.
        """
        split = split or Split.none()
        tables = self._tables(table, split)
        store, key = _cache.place(self.schema, split, tables, cache_dir)
        found = self._reuse(store / key) if key is not None and (store / key).is_dir() else None
        if found is not None:
            return found
        with room_in(store, "free some, or have them in another folder: cache_dir"):
            return self._encode_anew(tables, split, store, key, progress)

    def _tables(self, table: Any, split: Split) -> dict[str, Table]:
        given: Mapping[str, Any] = {"train": table, **split.tables}
        train = open_table(given["train"])
        self.schema = self._with_classes(train)
        opened = {**{name: open_table(data) for name, data in given.items()}, "train": train}
        tables = {name: self.schema.check(opened[name]) for name in PART_NAMES if name in opened}
        for label in self.schema.labels:
            check_both_classes(train, self.schema[label])
        return tables

    def _with_classes(self, train: Table) -> TableSchema:
        """The schema with the classes of its labels filled in."""
        schema = self.schema
        for name in schema.labels:
            if schema[name].classes is None and name in train.columns:
                schema = schema.replace(name, classes=label_classes(train, name))
        return schema

    def _reuse(self, folder: Path) -> dict[str, EncodedTable] | None:
        """The parts of an entry of the cache; one that was damaged, as by a power cut, is removed."""
        from .persistence import load_state

        try:
            self.coders, self._fitted = load_state(self.schema, folder / "encoder"), True
            found = self._open(folder)
        except (RunError, DataError):
            shutil.rmtree(folder, ignore_errors=True)
            self._fitted = False
            return None
        touch(folder)
        return found

    def _open(self, folder: Path, temporary: Path | None = None) -> dict[str, EncodedTable]:
        names = _cache.parts_of(folder)
        return {n: EncodedTable(folder / n, self.spec, self.counts(), temporary) for n in names}

    def _encode_anew(
        self, tables: dict[str, Table], split: Split, store: Path, key: str | None, progress: Progress | None
    ) -> dict[str, EncodedTable]:
        work = scratch(store)
        spills: dict[str, Spill] = {}
        try:
            self._first_pass(tables, split, work, spills, progress)
            for coder in self.coders:
                coder.finish()
            self._fitted = True
            for name in (n for n in PART_NAMES if n in spills):
                self._second_pass(spills[name], ShardWriter(work / name), tally=name == "train")
            self.save(work / "encoder")
            _cache.write_parts(work, [n for n in PART_NAMES if n in spills])
            if key is None:
                return self._open(work, temporary=work)
            return self._open(publish(work, store / key, bounded=store == _cache.default_dir()))
        except BaseException:
            for spill in spills.values():
                with suppress(OSError):  # what was to be written last may not fit either
                    spill.close()
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _first_pass(
        self,
        tables: dict[str, Table],
        split: Split,
        work: Path,
        spills: dict[str, Spill],
        progress: Progress | None,
    ) -> None:
        """Fill ``spills``, empty so far, with the rows of each part."""
        self.coders = self._new_coders()
        total, done = sum(t.n_rows() for t in tables.values()), 0
        seen = Classes(self.schema.labels)
        for name, table in tables.items():
            assign = split.assigner(table, self.schema) if name == "train" else None
            extra = split.columns(self.schema) if name == "train" else []
            targets = Targets(self.schema, list(table.columns), True, table.name)
            start = 0
            for batch in self._read(table, targets, extra):
                parts = (
                    np.full(batch.num_rows, PART_NAMES.index(name), np.uint8)
                    if assign is None
                    else assign(batch, start)
                )
                arrays = self._provisional(batch, parts, targets, table.name)
                spill_parts(arrays, parts, spills, work)
                seen.update(arrays[len(self.coders)][parts == TRAIN])
                start += batch.num_rows
                done += batch.num_rows
                if progress is not None:
                    progress(done, total)
        if "train" not in spills:
            raise DataError(
                f"{tables['train'].name}: the split leaves no rows to train on; lower valid and test"
            )
        seen.refuse_one_class(self.schema, tables["train"].name)

    def _read(
        self, table: Table, targets: Targets, extra: Sequence[str], rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        features = [c.name for c in self.schema.features]
        columns = list(dict.fromkeys([*features, *targets.columns, *extra]))
        text = [c.name for c in self.schema.columns if c.is_text and c.name in columns]
        return table.batches(columns, text=text, rows=rows)

    def _provisional(
        self, batch: pa.RecordBatch, parts: np.ndarray, targets: Targets, where: str
    ) -> list[np.ndarray]:
        train = None if (parts == TRAIN).all() else np.flatnonzero(parts == TRAIN)
        try:
            arrays = [coder.fit(batch.column(coder.column.name), train) for coder in self.coders]
        except SchemaError as error:
            raise SchemaError(f"{where}: {error}") from error
        return [*arrays, *(a for a in targets.encode(batch) if a is not None)]

    def _second_pass(self, spill: Spill, writer: ShardWriter, tally: bool) -> None:
        count = len(self.coders)
        for arrays in spill.read():
            labels, *rest = arrays[count:]
            weights = rest.pop(0) if self.schema.weight else None
            groups = rest.pop(0) if rest else None
            finals = [c.final(a) for c, a in zip(self.coders, arrays[:count], strict=True)]
            for coder, ids in zip(self.coders, finals, strict=True):
                if tally and isinstance(coder, BucketCoder):
                    coder.tally(ids)
            writer.append(self._block(finals, labels, weights, groups))
        writer.close()

    def _block(
        self,
        finals: Sequence[np.ndarray],
        labels: np.ndarray,
        weights: np.ndarray | None,
        groups: np.ndarray | None,
    ) -> Block:
        kinds = [c.field().kind for c in self.coders]
        chosen = {k: [a for a, kind in zip(finals, kinds, strict=True) if kind is k] for k in FieldKind}
        lists = tuple(a for a in finals if a.ndim == 2)
        return Block(
            interleave(chosen[FieldKind.CATEGORICAL], len(labels), np.int32),
            interleave(chosen[FieldKind.NUMERIC], len(labels), np.float32),
            lists,
            labels,
            weights,
            groups,
        )

    def _blocks(self, table: Table, require_labels: bool | None) -> Iterator[Block]:
        targets = Targets(self.schema, list(table.columns), require_labels, table.name)
        width = sum(max(field.length, 1) for field in self.spec.fields)
        for batch in self._read(table, targets, [], max(1024, min(BATCH_ROWS, _BLOCK_IDS // width))):
            try:
                finals = [c.encode(batch.column(c.column.name)) for c in self.coders]
            except SchemaError as error:
                raise SchemaError(f"{table.name}: {error}") from error
            yield self._block(finals, *targets.encode(batch))

    def encode(self, table: Any, require_labels: bool = False) -> EncodedTable:
        """Encode a table into temporary shards, which vanish with the result.

        Args:
            table: Anything that `open_table` takes; columns that the schema does not name are ignored.
            require_labels: Whether labels must be there; missing ones are NaN otherwise.

        Raises:
            SchemaError: A feature column is missing or of a type that does not convert.
            DataError: Labels or weights cannot be used.
        """
        self._require_fitted()
        opened = self.schema.check(table, require_labels)
        work = Path(tempfile.mkdtemp(prefix="graphrec-"))
        try:
            writer = ShardWriter(work / "rows")
            with room_in(work.parent, "free some, or have them in another folder: TMPDIR"):
                for block in self._blocks(opened, require_labels):
                    writer.append(block)
                writer.close()
            return EncodedTable(work / "rows", self.spec, self.counts(), temporary=work)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def batches(
        self, table: Any, batch_size: int = 65_536, require_labels: bool | None = False
    ) -> Iterator[Batch]:
        """Encode a table in a stream of batches, in its order, without shards; ``require_labels`` as for
        `TableSchema.check`.

        Raises:
            SchemaError, DataError: As `encode`; before the first batch where they can be known by then.
        """
        return (b.to_batch() for b in self.blocks(table, batch_size, require_labels))

    def blocks(
        self, table: Any, batch_size: int = 65_536, require_labels: bool | None = False
    ) -> Iterator[Block]:
        """`batches` as numpy arrays, for those who serve without torch."""
        self._require_fitted()
        opened = self.schema.check(table, require_labels)
        return rebatch(self._blocks(opened, require_labels), batch_size)

    def save(self, folder: str | Path) -> None:
        """Write schema.yaml, encoder.json and the vocabularies (parquet) into a folder."""
        from .persistence import save_encoder

        self._require_fitted()
        save_encoder(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> TableEncoder:
        """Read what `save` wrote.

        Raises:
            RunError: The folder holds no encoder, or one of an unknown version.
        """
        from .persistence import load_encoder

        return load_encoder(Path(folder))

    def _require_fitted(self) -> None:
        if not self._fitted:
            raise SchemaError("this encoder is not fitted; call fit_encode first, or load a saved one")

    def _new_coders(self) -> list[Coder]:
        books: dict[str, Codebook] = {}
        return [c for column in self.schema.features for c in make_coders(self.schema, column.name, books)]


def make_coders(schema: TableSchema, name: str, books: dict[str, Codebook]) -> list[Coder]:
    """New coders of one column; ``books`` collects the vocabularies, which other columns may share."""
    column = schema[name]
    if column.role is Role.TIMESTAMP:
        return [PartCoder(column, part) for part in column.parts]
    if column.role is Role.NUMERIC:
        return [BucketCoder(column) if column.transform == "quantile" else NumericCoder(column)]
    owner = schema[column.shares] if column.shares else column
    if owner.name not in books:
        hashed = HashedVocabulary(owner.name, owner.hash_buckets) if owner.hash_buckets else None
        books[owner.name] = Codebook(hashed or VocabularyBuilder(owner.name, owner.min_count, owner.max_size))
    coder = CategoryCoder if column.role is Role.CATEGORICAL else ListCoder
    return [coder(column, books[owner.name])]
