"""What `RelationExtractor` takes, checked and brought into its vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.array_labels import label_codes
from graphrec.pipelines.relations import RelationSet, neighbour_vectors, read_relations, read_vectors
from graphrec.training.arguments import check_number

from .batches import EDGES

Relations = RelationSet | str | Path
COLUMNS = {"word": "words", "pos": "pos_names", "dep": "dep_names"}
"""Column of a set, and what its vocabulary is called."""


def relation_set(relations: Any, what: str = "relations") -> RelationSet:
    """A set, or the set of a file.

    Raises:
        DataError: It is neither.
    """
    if isinstance(relations, (str, Path)):
        return read_relations(relations)
    if not isinstance(relations, RelationSet):
        raise DataError(
            f"{what}: must be a RelationSet or the path of a file, got {type(relations).__name__}"
        )
    return relations


def labelled(relations: RelationSet, y: Any) -> RelationSet:
    """The set with other labels, numbers or texts, when there are any.

    Raises:
        DataError: They are not one for each instance.
    """
    if y is None:
        return relations
    names, codes = label_codes(y, len(relations))
    return replace(relations, y=codes, classes=tuple(str(one) for one in names.tolist()))


def truth(relations: RelationSet, y: Any, classes: NDArray[Any], chosen: Tensor) -> NDArray[np.int64]:
    """Number of the chosen instances' classes among ``classes``.

    Raises:
        DataError: An instance has another class.
    """
    given = labelled(relations, y)
    place = {str(name): i for i, name in enumerate(classes.tolist())}
    code = np.array([place.get(name, -1) for name in given.classes], np.int64)
    found = code[given.y[chosen].numpy()]
    wrong = chosen.numpy()[found < 0]
    if len(wrong):
        name = given.classes[int(given.y[int(wrong[0])])]
        raise DataError(
            f"{relations.name}: instance {wrong[0]} is of class {name!r}, which was not fitted; fitted were "
            f"{', '.join(place)}"
        )
    return found


def class_weights(weight: Any, y: NDArray[np.int64], classes: NDArray[Any]) -> dict[int, float] | None:
    """Weight of each class's loss: ``"balanced"`` as scikit-learn counts it, or by the class's text.

    Raises:
        ConfigError: It is neither, or names another class.
    """
    if weight is None:
        return None
    names = [str(one) for one in classes.tolist()]
    if isinstance(weight, str) and weight == "balanced":
        counts = np.bincount(y, minlength=len(names))
        seen = np.count_nonzero(counts)
        return {c: len(y) / (seen * int(n)) if n else 1.0 for c, n in enumerate(counts)}
    if not isinstance(weight, Mapping):
        raise ConfigError(f"class_weight={weight!r}: must be 'balanced', None, or a number for each class")
    weight = {str(name): value for name, value in weight.items()}
    unknown = [name for name in weight if name not in names]
    if unknown:
        raise ConfigError(f"class_weight: there is no class {unknown[0]!r}; classes are {', '.join(names)}")
    for name, value in weight.items():
        check_number(f"class_weight[{name!r}]", value, 0.0, math.inf)
    return {c: float(weight.get(name, 1.0)) for c, name in enumerate(names)}


def vocabularies(
    relations: RelationSet, train: Tensor, *, min_count: int, lower: bool, edges: str
) -> dict[str, Any]:
    """Of the training texts alone, and the kind of edges: ``"auto"`` takes the trees that they have.

    Raises:
        ConfigError: ``edges`` is unknown.
    """
    if edges not in ("auto", *EDGES):
        raise ConfigError(f"edges={edges!r}: must be auto, {', '.join(EDGES)}")
    found: dict[str, Any] = {
        names: list(relations.vocabulary(train, 1, column)) for column, names in COLUMNS.items()
    }
    found["words"] = list(relations.vocabulary(train, min_count, lower=lower))
    if edges == "auto":
        used = torch.zeros(len(relations.text_ptr) - 1, dtype=torch.bool)
        used[relations.text[train]] = True
        inside = torch.repeat_interleave(used, relations.text_ptr.diff())
        edges = "tree" if bool((relations.head[inside] >= 0).any()) else "window"
    return {**found, "edges": edges}


def coded_as(relations: RelationSet, facts: Mapping[str, Any], *, lower: bool) -> RelationSet:
    """The set in the vocabularies of a fit, as far as it had any; unknown words keep their text.

    Raises:
        DataError: The set has another number of entities.
    """
    if relations.num_entities != facts["entities"]:
        raise DataError(
            f"{relations.name}: has {relations.num_entities} entities, fitted were {facts['entities']}"
        )
    for column, names in COLUMNS.items():
        if names in facts:
            word = column == "word"
            relations = relations.recoded(facts[names], column, lower=lower and word, keep=word)
    return relations


def start_vectors(
    module: nn.Module,
    coded: RelationSet,
    train: Tensor,
    facts: Mapping[str, Any],
    vectors: str | None,
    names: str | None,
) -> None:
    """Begin a network's table of words with vectors of the training texts (``"texts"``) or of a file.

    Raises:
        ConfigError: The file's have another width.
        DataError: The file is broken, or has none of the words.
    """
    if vectors is None:
        return
    if not isinstance(vectors, str | Path):
        raise ConfigError(f"vectors={vectors!r}: must be 'texts', the path of a file, or None")
    table: Tensor = module.embed.table.word.weight  # type: ignore[assignment, union-attr]
    if vectors == "texts":
        texts = torch.unique(coded.text[train])
        known_words = coded.recoded(facts["words"])
        found, known = neighbour_vectors(known_words, texts, table.shape[1], seed=facts["seed"])
    else:
        found, known = read_vectors(vectors, facts["words"], names=names)
        if found.shape[1] != table.shape[1]:
            raise ConfigError(
                f"vectors: {vectors} holds vectors of width {found.shape[1]}, the model's word_dim is "
                f"{table.shape[1]}; set model_options={{'word_dim': {found.shape[1]}}}"
            )
    with torch.no_grad():
        table[torch.from_numpy(known)] = torch.from_numpy(found[known])
