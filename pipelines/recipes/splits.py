"""How a recipe divides its data. Each function's keyword-only arguments are the options of its kind.

A function takes the data, the seed of the repetition and the folder of the data, and gives a list of splits:
of k-fold cross-validation k, of ten given masks ten. Where ``seed`` is an option, null draws anew for every
repetition and a number gives all repetitions the same splits.
"""

# No `from __future__ import annotations` here: pydantic needs the annotations themselves.
from typing import TYPE_CHECKING, Any

from graphrec.errors import ConfigError

from .folder import DataFolder
from .sources import Divided
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..hypergraphs import ProductionSplit
    from ..index_splits import IndexSplit

SPLITS = Vocabulary("split", "kind")


@SPLITS.register("graphs")
def fold_files(
    data: Any, seed: int, folder: DataFolder, *, path: str, valid: float = 0.1
) -> "list[IndexSplit]":
    """The fixed folds that come with a set; ``valid`` of each training part validates."""
    from ..graphs import read_folds
    from ..index_splits import with_validation

    folds = read_folds(folder.file(path, "split.path"), len(data))
    return [with_validation(fold, data.y, valid, seed=seed) for fold in folds]


@SPLITS.register("graphs", "graph")
def stratified(
    data: Any, seed: int, folder: DataFolder, *, folds: int = 10, valid: float = 0.1, draw: int | None = 0
) -> "list[IndexSplit]":
    """k-fold cross-validation with the classes in proportion; ``valid`` of each training part validates."""
    from ..index_splits import stratified_folds

    return stratified_folds(data.y, folds, valid=valid, seed=seed if draw is None else draw)


@SPLITS.register("graphs", "graph", "hypergraph")
def random(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    draw: int | None = None,
) -> "list[IndexSplit]":
    """Random parts with the classes in proportion, drawn anew for each seed."""
    from ..index_splits import random_parts

    return [random_parts(data.y, valid, test, seed=seed if draw is None else draw)]


@SPLITS.register("graphs", "graph", "hypergraph", "windows", "relations")
def given(data: Any, seed: int, folder: DataFolder) -> "list[IndexSplit]":
    """Those that the data come with: a graph's masks, as Planetoid's public split, or a source's folds."""
    from ..graphs import node_split

    if isinstance(data, Divided):
        return list(data.splits)
    if not hasattr(data, "num_nodes"):
        raise ConfigError(f"split.kind: the source gives no splits with {data!s:.60}; take another kind")
    mask = data.get("train_mask")
    count = 1 if mask is None or mask.dim() == 1 else mask.shape[1]
    return [node_split(data, number) for number in range(count)]


@SPLITS.register("graph", "hypergraph")
def per_class(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    train: int = 20,
    valid: int = 500,
    test: int | None = 1000,
    valid_per_class: bool = False,
    draw: int | None = None,
) -> "list[IndexSplit]":
    """So many of each class train, others validate and test: random splits in the manner of Planetoid."""
    from .. import index_splits

    seed = seed if draw is None else draw
    split = index_splits.per_class(data.y, train, valid, test, valid_per_class=valid_per_class, seed=seed)
    return [split]


@SPLITS.register("hypergraph")
def transductive(
    data: Any, seed: int, folder: DataFolder, *, train: int = 20, valid: int = 100, draw: int | None = None
) -> "list[IndexSplit]":
    """LightHGNN's protocol: so many vertices of each class train and validate, all others test."""
    from ..hypergraphs import transductive_split

    return [transductive_split(data, train=train, valid=valid, seed=seed if draw is None else draw)]


@SPLITS.register("hypergraph")
def production(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    train: int = 20,
    valid: int = 100,
    unseen: float = 0.2,
    draw: int | None = None,
) -> "list[ProductionSplit]":
    """LightHGNN's other protocol: a share of the test vertices is not there in training."""
    from ..hypergraphs import production_split

    seed = seed if draw is None else draw
    return [production_split(data, train=train, valid=valid, unseen=unseen, seed=seed)]


@SPLITS.register("windows")
def along_time(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    gap: float = 0.0,
) -> "list[IndexSplit]":
    """The beginning of every recording trains, its end tests, ``gap`` seconds are left out between."""
    from ..eeg import split_by_time

    return [split_by_time(data, valid, test, gap=round(gap * data.rate))]


@SPLITS.register("windows")
def within_recordings(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    folds: int = 10,
    gap: float = 0.0,
    by_subject: bool = False,
) -> "list[IndexSplit]":
    """Folds along time inside every recording, of all or of each subject alone: a trial trains and tests."""
    from ..eeg import time_folds

    found = time_folds(data, folds, gap=round(gap * data.rate))
    if not by_subject:
        return found
    return [_of_subject(fold, data, i) for i in range(len(data.subjects)) for fold in found]


def _of_subject(split: "IndexSplit", data: Any, subject: int) -> "IndexSplit":
    from ..index_splits import IndexSplit

    train, valid, test = (p[data.subject[p] == subject] for p in (split.train, split.valid, split.test))
    name = f"{split.name}, subject {data.subjects[subject]}"
    return IndexSplit.of(train, valid, test, split.total, name)


@SPLITS.register("windows")
def whole_recordings(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    draw: int | None = None,
) -> "list[IndexSplit]":
    """Whole recordings train, validate and test."""
    from ..eeg import split_by_recording

    return [split_by_recording(data, valid, test, seed=seed if draw is None else draw)]


@SPLITS.register("windows")
def left_out_subjects(
    data: Any, seed: int, folder: DataFolder, *, valid: int = 1, draw: int | None = 0
) -> "list[IndexSplit]":
    """Each subject in turn tests, of whom nothing trained; ``valid`` of the others validate."""
    from ..eeg import leave_one_subject_out

    return leave_one_subject_out(data, valid=valid, seed=seed if draw is None else draw)


@SPLITS.register("relations")
def whole_texts(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    draw: int | None = None,
) -> "list[IndexSplit]":
    """Random texts, each with all of its instances."""
    from ..relations import split_by_text

    relations = data.data if isinstance(data, Divided) else data
    return [split_by_text(relations, valid, test, seed=seed if draw is None else draw)]


@SPLITS.register("table")
def rows(
    data: Any, seed: int, folder: DataFolder, *, by: str = "random", valid: float = 0.1, test: float = 0.1
) -> list[dict[str, Any]]:
    """Rows of a table: ``random``, ``order``, ``time:COLUMN`` or ``group:COLUMN``."""
    return [{"split": by, "validation": valid, "test": test}]


@SPLITS.register("images")
def image_parts(
    data: Any,
    seed: int,
    folder: DataFolder,
    *,
    valid: float = 0.1,
    test: float = 0.2,
    draw: int | None = None,
) -> "list[IndexSplit]":
    """The parts that the images came with, else random ones: of whole groups, or of classes in proportion."""
    from ..images import split_images

    return [split_images(data, valid, test, seed=seed if draw is None else draw)]
