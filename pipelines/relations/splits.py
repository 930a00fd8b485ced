"""Splits of relation instances that keep the instances of a text together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError

from ..index_splits import PARTS, IndexSplit
from .container import RelationSet


def split_by_text(
    relations: RelationSet, valid: float = 0.1, test: float = 0.1, *, seed: int = 0
) -> IndexSplit:
    """Random texts; shares count texts.

    Raises:
        ConfigError: The shares are negative or leave nothing to train on.
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise ConfigError(f"valid={valid}, test={test}: must not be negative and must sum to less than 1")
    rest, held = hold_out_texts(relations, torch.arange(len(relations)), test, seed)
    train, checks = hold_out_texts(relations, rest, valid / (1 - test), seed + 1)
    return IndexSplit(train, checks, held, len(relations), f"{relations.name}: by text, seed {seed}")


def hold_out_texts(relations: RelationSet, index: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """``index`` in two, the second with all instances of a share of the texts."""
    texts = torch.unique(relations.text[index]).numpy()
    held = np.random.default_rng([seed, 13]).permutation(texts)[: round(share * len(texts))]
    away = torch.isin(relations.text[index], torch.from_numpy(held.copy()))
    return index[~away], index[away]


def join_parts(
    train: RelationSet, valid: RelationSet | None = None, test: RelationSet | None = None
) -> tuple[RelationSet, IndexSplit]:
    """Sets that were read from files of their own as one, with the split that they make.

    Vocabularies and classes are united; words of validation and test alone keep codes until
    `RelationSet.recoded` makes them unknown. A text that occurs in two parts stays in both, as the files have
    it.

    Raises:
        ConfigError: The sets differ in the number of entities.
    """
    given = [(p, s) for p, s in zip(PARTS, (train, valid, test), strict=True) if s is not None]
    if len({s.num_entities for _, s in given}) != 1:
        raise ConfigError(f"join_parts: sets with {[s.num_entities for _, s in given]} entities")
    sets = [s for _, s in given]
    names = {
        n: tuple(dict.fromkeys(v for s in sets for v in getattr(s, n)))
        for n in ("words", "pos_names", "dep_names")
    }
    classes = tuple(sorted({c for s in sets for c in s.classes}))
    if all(s.classes == train.classes for s in sets):
        classes = train.classes
    coded = [_coded(s, names, classes) for s in sets]
    joined = _concatenated(coded, classes)
    ends = np.cumsum([0] + [len(s) for s in sets])
    index = {p: np.arange(ends[i], ends[i + 1]) for i, (p, _) in enumerate(given)}
    parts = [index.get(p, np.zeros(0, np.int64)) for p in PARTS]
    return joined, IndexSplit.of(parts[0], parts[1], parts[2], len(joined), f"{train.name}: given parts")


def _coded(one: RelationSet, names: dict[str, tuple[str, ...]], classes: tuple[str, ...]) -> RelationSet:
    for column, key in (("word", "words"), ("pos", "pos_names"), ("dep", "dep_names")):
        one = one.recoded(names[key], column)
    code = torch.tensor([classes.index(c) for c in one.classes])
    return replace(one, y=code[one.y], classes=classes)


def _concatenated(sets: list[RelationSet], classes: tuple[str, ...]) -> RelationSet:
    texts = np.cumsum([0] + [len(s.text_ptr) - 1 for s in sets])
    instances = np.cumsum([0] + [len(s) for s in sets])
    columns: dict[str, Any] = {
        k: torch.cat([getattr(s, k) for s in sets]) for k in ("word", "pos", "dep", "head", "y")
    }
    lengths = torch.cat([s.text_ptr.diff() for s in sets])
    spans = [s.spans + torch.tensor([int(instances[i]), 0, 0, 0]) for i, s in enumerate(sets)]
    return replace(
        sets[0],
        **columns,
        text_ptr=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
        text=torch.cat([s.text + int(texts[i]) for i, s in enumerate(sets)]),
        spans=torch.cat(spans),
        classes=classes,
    )
