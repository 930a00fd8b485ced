"""What `RelationExtractor` takes, checked and brought into its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ConfigError, DataError
from graphrec.pipelines.relations import RelationSet, read_relations

Relations = RelationSet | str | Path


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
    values = np.asarray(y)
    if values.shape != (len(relations),):
        raise DataError(f"y has shape {values.shape}, must be ({len(relations)},)")
    names, codes = np.unique(values, return_inverse=True)
    classes = tuple(str(one) for one in names.tolist())
    return replace(relations, y=torch.from_numpy(codes.astype(np.int64)), classes=classes)


def check_classes(relations: RelationSet, train: Tensor) -> None:
    """Refuse instances that are all of one class.

    Raises:
        DataError: They are.
    """
    seen = torch.unique(relations.y[train]).tolist()
    if len(seen) < 2:
        names = ", ".join(repr(relations.classes[c]) for c in seen)
        raise DataError(
            f"{relations.name}: the {len(train)} training instances are all of class {names}; a classifier "
            "needs two classes"
        )


def truth(relations: RelationSet, y: Any, classes: NDArray[Any], chosen: Tensor) -> NDArray[np.int64]:
    """Number of the chosen instances' classes among ``classes``.

    Raises:
        DataError: An instance has another class.
    """
    given = labelled(relations, y)
    place = {name: i for i, name in enumerate(classes.tolist())}
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
    names = classes.tolist()
    if isinstance(weight, str) and weight == "balanced":
        counts = np.bincount(y, minlength=len(names))
        seen = np.count_nonzero(counts)
        return {c: len(y) / (seen * int(n)) if n else 1.0 for c, n in enumerate(counts)}
    if not isinstance(weight, Mapping) or not all(isinstance(w, (int, float)) for w in weight.values()):
        raise ConfigError(f"class_weight={weight!r}: must be 'balanced', None, or a number for each class")
    unknown = [name for name in weight if name not in names]
    if unknown:
        raise ConfigError(f"class_weight: there is no class {unknown[0]!r}; classes are {', '.join(names)}")
    return {c: float(weight.get(name, 1.0)) for c, name in enumerate(names)}
