"""Parsed relation instances in JSON: the drug-gene-mutation sets of Peng et al. (arXiv 1708.03743), SemEval
2010.

A file is a list of objects with ``token``, ``stanford_pos``, ``stanford_head`` (from 1; 0 the root, -1
detached), ``stanford_deprel``, ``relation``, and for each entity ``<entity>_start`` and ``<entity>_end``
(inclusive, from 0).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from graphrec.errors import DataError

from ..index_splits import IndexSplit
from .builder import Builder
from .container import RelationSet
from .splits import hold_out_texts
from .text_files import read_text

ENTITIES = (("first", "second", "third"), ("first", "second"), ("subj", "obj"))
_LISTS = ("token", "stanford_pos", "stanford_head", "stanford_deprel")
_CALLED = {int: "a whole number", str: "a text"}


def read_nary(
    path: str | Path,
    *,
    positive: str | None = None,
    negative: str = "None",
    classes: Sequence[str] | None = None,
) -> RelationSet:
    """Read one file, plain or gzipped.

    Args:
        path: The file.
        positive: When given, all relations but ``negative`` become this one class (the sets' two-class task).
        negative: Name of the class without a relation.
        classes: Text of the classes; None takes those that occur, in the order of the alphabet.

    Raises:
        DataError: The file is broken, or an instance lacks a part or contradicts itself; names the instance.
    """
    builder = _read([path], positive, negative)[0]
    return builder.finish(classes)


def read_nary_folds(
    folder: str | Path,
    *,
    positive: str | None = None,
    negative: str = "None",
    valid: float = 0.1,
    seed: int = 0,
    drop_shared: bool = False,
) -> tuple[RelationSet, list[IndexSplit]]:
    """The given folds, files ``fold<k>.test.json`` or ``.json.gz``: fold k tests, the others train.

    The published folds share texts: of the ternary set's training instances in fold 0, 1,322 of 5,513 have
    exactly the text of a test instance. Published figures are measured so; ``drop_shared`` measures without.

    Args:
        folder: Such as ``pubmed_nary/ternary``.
        positive, negative: As in `read_nary`.
        valid: Share of each fold's training texts that validate; whole texts, because many instances share
            one.
        seed: Of their choice.
        drop_shared: Whether instances that share a text with the test fold are left out of training and
            validation; `IndexSplit.left_out` tells which.

    Returns:
        All instances, and a split for each fold.

    Raises:
        DataError: There are not two or more folds, or a file is broken.
    """
    files = sorted(Path(folder).glob("fold*.test.json*"))
    if len(files) < 2:
        raise DataError(
            f"{folder}: holds {len(files)} files fold<k>.test.json; give the folder with the folds"
        )
    builder, fold = _read(files, positive, negative)
    relations = builder.finish()
    splits = []
    for k in range(len(files)):
        test = (fold == k).nonzero().flatten()
        rest = fold != k
        if drop_shared:
            rest &= ~torch.isin(relations.text, relations.text[test])
        train, held = hold_out_texts(relations, rest.nonzero().flatten(), valid, seed * len(files) + k)
        splits.append(IndexSplit(train, held, test, len(relations), f"{folder}: fold {k}"))
    return relations, splits


def _read(paths: Sequence[str | Path], positive: str | None, negative: str) -> tuple[Builder, torch.Tensor]:
    """All instances of the files, and the number of each one's file."""
    builder: Builder | None = None
    fold: list[int] = []
    names: tuple[str, ...] = ()
    for number, path in enumerate(paths):
        rows = _load(path)
        if builder is None:
            names = _entities(rows[0], f"{path}: instance 1")
            builder = Builder(str(path if len(paths) == 1 else Path(path).parent), len(names))
        for i, row in enumerate(rows):
            _add(builder, row, names, f"{path}: instance {i + 1}", positive, negative)
        fold += [number] * len(rows)
    assert builder is not None
    return builder, torch.tensor(fold)


def _load(path: str | Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {error.lineno}: broken JSON ({error.msg}); cut short?") from error
    except RecursionError as error:
        raise DataError(f"{path}: is nested too deep for a list of instances") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise DataError(f"{path}: must hold a list of objects, one for each instance")
    return rows


def _entities(row: dict[str, Any], where: str) -> tuple[str, ...]:
    for names in ENTITIES:
        if all(f"{n}_start" in row for n in names):
            return names
    raise DataError(f"{where}: has neither first_start nor subj_start; it has {', '.join(row)}")


def _add(
    builder: Builder,
    row: dict[str, Any],
    names: tuple[str, ...],
    where: str,
    positive: str | None,
    negative: str,
) -> None:
    wanted = [*_LISTS, "relation", *(f"{n}_{end}" for n in names for end in ("start", "end"))]
    missing = next((k for k in wanted if row.get(k) is None), None)
    if missing is not None:
        raise DataError(f"{where}: has no {missing}")
    _check_kinds(row, names, where)
    tokens, pos, heads, dep = (row[k] for k in _LISTS)
    if not len(tokens) == len(pos) == len(heads) == len(dep) or not tokens:
        raise DataError(
            f"{where}: {len(tokens)} tokens, {len(pos)} parts of speech, {len(heads)} heads, {len(dep)} "
            "labels"
        )
    head = [max(int(h) - 1, -1) for h in heads]
    if min(map(int, heads)) < -1 or max(head) >= len(tokens):
        raise DataError(f"{where}: a head is not -1 to {len(tokens)}")
    spans = [(k, int(row[f"{n}_start"]), int(row[f"{n}_end"]) + 1) for k, n in enumerate(names)]
    for k, first, last in spans:
        if not 0 <= first < last <= len(tokens):
            raise DataError(f"{where}: entity {names[k]} at tokens {first} to {last - 1} of {len(tokens)}")
    label = str(row["relation"])
    label = positive if positive is not None and label != negative else label
    builder.add_instance(builder.add_text(tokens, pos, dep, head), spans, label)


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of a kind, or a text that says such a whole number."""
    if kind is int and isinstance(value, str):
        return value.removeprefix("-").isdecimal()
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_kinds(row: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    """Refuse lists that are none, and entries of them that are no texts or numbers."""
    for key in _LISTS:
        if not isinstance(row[key], list):
            raise DataError(f"{where}: {key} must be a list, found {row[key]!r:.60}")
        kind = int if key == "stanford_head" else str
        for number, one in enumerate(row[key], 1):
            if not _is(one, kind):
                raise DataError(f"{where}: {key}: entry {number} must be {_CALLED[kind]}, found {one!r:.60}")
    for key in (f"{n}_{end}" for n in names for end in ("start", "end")):
        if not _is(row[key], int):
            raise DataError(f"{where}: {key} must be a whole number, found {row[key]!r:.60}")
    if not _is(row["relation"], str) and not _is(row["relation"], int):
        raise DataError(f"{where}: relation must be a text, found {row['relation']!r:.60}")
