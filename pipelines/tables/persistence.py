"""Saving and loading a fitted encoder: schema.yaml, encoder.json and one parquet file per vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphrec.errors import RunError, SchemaError

from .coders import CategoryCoder, Coder, ListCoder
from .features import FIRST_ID
from .number_coders import BucketCoder, NumericCoder, PartCoder
from .schema import Column, Role, TableSchema
from .transforms import Bucketer, Knots, Scaler
from .vocabulary import Codebook, HashedVocabulary, Vocabulary

if TYPE_CHECKING:
    from .encoder import TableEncoder

FORMAT_VERSION = 1
_STATE = "encoder.json"
_SCHEMA = "schema.yaml"


def save_encoder(encoder: TableEncoder, folder: Path) -> None:
    """Write a fitted encoder into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    books = _books(encoder.coders)
    vocabularies = {name: _save_book(book, folder, i) for i, (name, book) in enumerate(books.items())}
    state = {
        "format_version": FORMAT_VERSION,
        "spec": encoder.spec.to_dict(),
        "coders": [{"field": c.field().name, **c.state()} for c in encoder.coders],
        "vocabularies": vocabularies,
    }
    encoder.schema.to_yaml(folder / _SCHEMA)
    (folder / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def _books(coders: list[Coder]) -> dict[str, Codebook]:
    found = [c.book for c in coders if isinstance(c, CategoryCoder)]
    return {book.vocabulary.name: book for book in found}


def _save_book(book: Codebook, folder: Path, index: int) -> dict[str, Any]:
    import polars as pl

    vocabulary = book.vocabulary
    file = f"vocabulary-{index:03d}.parquet"
    if isinstance(vocabulary, HashedVocabulary):
        pl.DataFrame({"count": vocabulary.counts}).write_parquet(folder / file)
        return {"file": file, "buckets": vocabulary.buckets}
    frame = pl.DataFrame({"value": vocabulary.values, "count": vocabulary.counts[FIRST_ID:]})
    frame.write_parquet(folder / file, statistics=False)
    return {"file": file, "null": int(vocabulary.counts[0]), "unseen": int(vocabulary.counts[1])}


def load_encoder(folder: Path) -> TableEncoder:
    """Read what `save_encoder` wrote."""
    from .encoder import TableEncoder

    if not (folder / _SCHEMA).is_file():
        raise RunError(f"{folder}: holds no encoder ({_SCHEMA} is missing)")
    try:
        schema = TableSchema.from_yaml(folder / _SCHEMA)
    except SchemaError as error:
        raise RunError(str(error)) from error
    encoder = TableEncoder(schema)
    encoder.coders = load_state(schema, folder)
    encoder._fitted = True
    return encoder


def load_state(schema: TableSchema, folder: Path) -> list[Coder]:
    """The fitted coders of a saved encoder.

    Raises:
        RunError: Files are missing, damaged or of an unknown version.
    """
    import polars as pl

    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if state.get("format_version") != FORMAT_VERSION:
            found = state.get("format_version")
            raise RunError(
                f"{folder / _STATE}: format version {found}, this graphrec reads {FORMAT_VERSION}; upgrade it"
            )
        books = {name: _load_book(name, entry, folder) for name, entry in state["vocabularies"].items()}
        saved = iter(state["coders"])
        return [c for column in schema.features for c in _restore(schema, column, books, saved)]
    except RunError:
        raise
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, pl.exceptions.PolarsError,
    ) as error:  # fmt: skip
        raise RunError(f"{folder}: the saved encoder is damaged ({type(error).__name__}: {error})") from error


def _load_book(name: str, entry: dict[str, Any], folder: Path) -> Codebook:
    import polars as pl

    frame = pl.read_parquet(folder / entry["file"])
    counts = frame["count"].to_numpy().astype(np.int64)
    if "buckets" in entry:
        return Codebook(HashedVocabulary(name, int(entry["buckets"]), counts), fixed=True)
    head = np.array([entry["null"], entry["unseen"]], np.int64)
    return Codebook(Vocabulary(name, frame["value"], np.concatenate([head, counts])))


def _restore(schema: TableSchema, column: Column, books: dict[str, Codebook], saved: Any) -> list[Coder]:
    if column.role is Role.TIMESTAMP:
        return [PartCoder(column, p, np.array(next(saved)["counts"], np.int64)) for p in column.parts]
    entry = dict(next(saved))
    entry.pop("field")
    if column.role is Role.NUMERIC and column.transform == "quantile":
        edges, counts = np.array(entry["edges"], np.float32), np.array(entry["counts"], np.int64)
        return [BucketCoder(column, Bucketer(column.bins, edges, counts))]
    if column.role is Role.NUMERIC:
        return [NumericCoder(column, Knots(column.bins, **entry) if "knots" in entry else Scaler(**entry))]
    book = books[column.shares or column.name]
    if column.role is Role.CATEGORICAL:
        return [CategoryCoder(column, book)]
    return [ListCoder(column, book, int(entry["width"]))]
