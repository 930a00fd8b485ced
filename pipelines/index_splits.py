"""Splits by index: which of n graphs, nodes, windows or sentences train, validate and test.

Every function is pure: the same arguments and seed give the same split, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.errors import ConfigError, DataError

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class IndexSplit:
    """Disjoint parts of the indices ``0 … total - 1``.

    Attributes:
        train: int64 (a,).
        valid: int64 (b,); may be empty.
        test: int64 (c,); may be empty.
        total: Number of indices.
        name: What messages call it, such as ``"fold 3 of 10fold_idx"``.
        left_out: Indices in no part, ascending, int64.

    Raises:
        DataError: An index is out of range, or in two parts, or twice in one.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    total: int
    name: str = "split"
    left_out: Tensor = field(init=False)

    @classmethod
    def of(cls, train: Any, valid: Any, test: Any, total: int, name: str = "split") -> IndexSplit:
        """From lists, arrays or tensors of indices."""
        parts = [torch.as_tensor(p, dtype=torch.int64).flatten() for p in (train, valid, test)]
        return cls(parts[0], parts[1], parts[2], total, name)

    def __post_init__(self) -> None:
        together = torch.cat([self.train, self.valid, self.test])
        self._check(together)
        free = torch.ones(self.total, dtype=torch.bool)
        free[together] = False
        object.__setattr__(self, "left_out", free.nonzero().flatten())

    def _check(self, together: Tensor) -> None:
        if len(together) and not 0 <= int(together.min()) <= int(together.max()) < self.total:
            wrong = together[(together < 0) | (together >= self.total)]
            raise DataError(
                f"{self.name}: index {int(wrong[0])} is not one of the {self.total} that are split; "
                "the split belongs to another data set"
            )
        counts = torch.bincount(together, minlength=self.total)
        if len(together) and int(counts.max()) > 1:
            raise DataError(f"{self.name}: index {int(counts.argmax())} occurs {int(counts.max())} times")

    def masks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Train, valid and test as bool (total,) each."""
        return self._mask(self.train), self._mask(self.valid), self._mask(self.test)

    def _mask(self, index: Tensor) -> Tensor:
        mask = torch.zeros(self.total, dtype=torch.bool)
        mask[index] = True
        return mask

    def describe(self) -> str:
        """One line: the sizes, and which indices are in no part."""
        sizes = ", ".join(f"{part} {len(getattr(self, part))}" for part in PARTS)
        if not len(self.left_out):
            return f"{self.name}: {sizes}"
        shown = ", ".join(str(i) for i in self.left_out[:8].tolist())
        dots = ", ..." if len(self.left_out) > 8 else ""
        return f"{self.name}: {sizes}; {len(self.left_out)} of {self.total} in no part ({shown}{dots})"

    def __repr__(self) -> str:
        return f"IndexSplit({self.describe()})"


def from_masks(train: Any, valid: Any, test: Any, name: str = "masks") -> IndexSplit:
    """From three masks, bool (n,) each.

    Raises:
        DataError: They differ in length or overlap.
    """
    parts = [torch.as_tensor(m, dtype=torch.bool).flatten() for m in (train, valid, test)]
    if len({len(p) for p in parts}) != 1:
        raise DataError(f"{name}: masks of {[len(p) for p in parts]} values; they must be equally long")
    first, second, third = (p.nonzero() for p in parts)
    return IndexSplit.of(first, second, third, len(parts[0]), name)


def stratified_folds(
    labels: Any, folds: int = 10, *, valid: float = 0.0, seed: int = 0, stratify: bool = True
) -> list[IndexSplit]:
    """k-fold cross-validation: every labelled index is in one test part.

    Args:
        labels: Classes (n,); a negative one is left out of all folds.
        folds: How many.
        valid: Share of each fold's training part that becomes its validation part.
        seed: Of the order in which indices are dealt.
        stratify: Whether folds keep the proportions of the classes.

    Raises:
        ConfigError: Fewer than two folds, a class has fewer members than folds, or the share is not between
            0 and 1.
    """
    y = np.asarray(labels).astype(np.int64)
    index = np.flatnonzero(y >= 0)
    if not 0 <= valid < 1:
        raise ConfigError(f"valid={valid}: must lie between 0 and 1")
    if not 2 <= folds <= max(len(index), 1):
        raise ConfigError(f"folds={folds}: must be 2 to {len(index)}, the number of labelled graphs or rows")
    group = y[index] if stratify else np.zeros(len(index), np.int64)
    rarest = int(np.unique(group, return_counts=True)[1].min())
    if rarest < folds:
        raise ConfigError(
            f"folds={folds}: the rarest class has {rarest} members; take fewer folds or stratify=False"
        )
    order = _dealt(group, np.random.default_rng(seed))
    part = np.empty(len(index), np.int64)
    part[order] = np.arange(len(index)) % folds
    splits = []
    for k in range(folds):
        rest, held = index[part != k], index[part == k]
        train, held_valid = _cut(rest, y[rest] if stratify else np.zeros(len(rest)), valid, seed * folds + k)
        splits.append(IndexSplit.of(train, held_valid, held, total=len(y), name=f"fold {k}"))
    return splits


def with_validation(split: IndexSplit, labels: Any, share: float, *, seed: int = 0) -> IndexSplit:
    """A split without a validation part, such as a fold that comes with a set, given one.

    Args:
        split: Its validation part is empty.
        labels: Classes (total,), kept in proportion.
        share: Of the training part that validates from now on; 0 leaves the split as it is.
        seed: Of the draw.

    Raises:
        ConfigError: The share is not between 0 and 1, or the split has a validation part.
    """
    if not 0 <= share < 1 or len(split.valid):
        raise ConfigError(
            f"valid={share}: must lie between 0 and 1, and {split.name} may not have a validation part yet"
        )
    index = split.train.numpy()
    rest, held = _cut(index, np.asarray(labels)[index], share, seed)
    return IndexSplit.of(rest, held, split.test, split.total, split.name)


def random_parts(
    labels: Any, valid: float = 0.1, test: float = 0.1, *, seed: int = 0, stratify: bool = True
) -> IndexSplit:
    """Random parts; with ``stratify`` each has the classes in the proportions of the whole.

    Raises:
        ConfigError: The shares are negative or leave nothing to train on.
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise ConfigError(f"valid={valid} and test={test}: must not be negative and must sum to less than 1")
    y = np.asarray(labels).astype(np.int64)
    index = np.flatnonzero(y >= 0)
    group = y if stratify else np.zeros(len(y), np.int64)
    rest, held = _cut(index, group[index], test, seed)
    train, held_valid = _cut(rest, group[rest], valid / (1 - test), seed + 1)
    return IndexSplit.of(train, held_valid, held, total=len(y), name=f"random split, seed {seed}")


def draw_groups(
    count: int,
    valid: float = 0.1,
    test: float = 0.1,
    *,
    seed: int = 0,
    what: str = "group",
    name: str = "split",
) -> Tensor:
    """The part of each group where whole groups are drawn; at least one for each share that is positive.

    Args:
        count: Number of groups.
        valid: Share of them that validates.
        test: Share that tests.
        seed: Of the draw.
        what: What messages call a group.
        name: Of the data.

    Returns:
        int64 (count,): 0 trains, 1 validates, 2 tests.

    Raises:
        ConfigError: The shares are negative, or leave no group to train on.
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise ConfigError(f"valid={valid}, test={test}: must not be negative and must sum to less than 1")
    held = max(round(test * count), 1) if test else 0
    held_valid = max(round(valid * count), 1) if valid else 0
    if held + held_valid >= count:
        raise ConfigError(f"{name}: {count} {what}s are too few for parts of their own")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    part = torch.zeros(count, dtype=torch.int64)
    part[order[:held]], part[order[held : held + held_valid]] = 2, 1
    return part


def _dealt(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions sorted by group, shuffled within each."""
    return np.lexsort((rng.random(len(group)), group))


def _cut(index: np.ndarray, group: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``index`` in two, the second with ``share`` of every group (taken evenly along the sorted groups)."""
    if not share:
        return index, index[:0]
    order = _dealt(group, np.random.default_rng([seed, 7]))
    place = np.floor((np.arange(len(index)) + 1) * share + 1e-9)
    taken = np.zeros(len(index), bool)
    taken[order] = np.diff(place, prepend=0) > 0
    return index[~taken], index[taken]


def per_class(
    labels: Any,
    train: int = 20,
    valid: int = 500,
    test: int | None = 1000,
    *,
    valid_per_class: bool = False,
    seed: int = 0,
) -> IndexSplit:
    """So many of each class train; the others validate and test.

    The random splits in the manner of Planetoid (20 per class, 500, 1,000) of Shchur et al., arXiv
    1811.05868; with ``valid=100, valid_per_class=True, test=None`` those of LightHGNN, arXiv 2402.04296.

    Args:
        labels: Classes (n,); a negative one is left out.
        train: Members of each class that train.
        valid: Members that validate: of each class with ``valid_per_class``, of all together without.
        test: Members that test; None takes all that are left.
        valid_per_class: See ``valid``.
        seed: Of the draw.

    Raises:
        ConfigError: A number is negative, or none are to train.
        DataError: A class or the whole is too small.
    """
    for name, size in (("train", train), ("valid", valid), ("test", 0 if test is None else test)):
        if size < (name == "train"):
            raise ConfigError(f"{name}={size}: must be a number of members, not negative, and some train")
    y = np.asarray(labels).astype(np.int64)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(y >= 0))
    classes, codes, sizes = np.unique(y[order], return_inverse=True, return_counts=True)
    wanted = train + (valid if valid_per_class else 0)
    if len(sizes) == 0 or sizes.min() < wanted:
        rare = (
            f"class {classes[sizes.argmin()]} has {sizes.min()} members"
            if len(sizes)
            else "nothing is labelled"
        )
        raise DataError(f"split of {wanted} per class: {rare}; take fewer per class")
    rank = _rank_within(codes)
    chosen = order[rank < train]
    if valid_per_class:
        held, rest = order[(rank >= train) & (rank < wanted)], order[rank >= wanted]
    else:
        held, rest = order[rank >= train][:valid], order[rank >= train][valid:]
    if len(held) < valid or (test is not None and len(rest) < test):
        raise DataError(
            f"split of {train} per class, {valid} and {test}: only {len(held) + len(rest)} are left after "
            "training; take fewer"
        )
    return IndexSplit.of(chosen, held, rest[:test], total=len(y), name=f"{train} per class, seed {seed}")


def _rank_within(codes: np.ndarray) -> np.ndarray:
    """How many earlier entries have the same code."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    return rank


def never_tested(folds: Sequence[IndexSplit]) -> Tensor:
    """Indices that are in no fold's test part, ascending; int64.

    Some fold files in circulation leave a few graphs untested, to make all folds equally large.
    """
    free = torch.ones(folds[0].total, dtype=torch.bool)
    for split in folds:
        free[split.test] = False
    return free.nonzero().flatten()
