"""A set of images: where each picture lies, its label, and what is known of it before it is decoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor

from graphrec.errors import DataError

from ..index_splits import IndexSplit
from .labels import recode
from .stores import ArrayStore, Store


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Pictures, not decoded, with their labels. Made by `open_images`.

    Attributes:
        store: Where the pictures lie.
        rows: Which of the store's pictures these are, int64 (N,).
        labels: Class of each, int64 (N,); None without labels.
        classes: Names of the classes, in the order of the labels.
        kind: Type of the column that held the labels; None is text, as names of folders are.
        split: Parts that came with the data (folders ``train`` and ``test``, a column), or None.
        groups: What must stay together in a split, int64 (N,), or None.
        weights: How much each counts, float32 (N,), or None.
        skipped: Names of the pictures that were left out on request, with the reason.
        facts: Width, height and mode of each by number in the store, where the check read them.
        title: What messages call the set.
    """

    store: Store
    rows: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    kind: pl.DataType | None = None
    split: IndexSplit | None = None
    groups: Tensor | None = None
    weights: Tensor | None = None
    skipped: tuple[str, ...] = ()
    facts: Mapping[int, tuple[int, int, str]] = field(default_factory=dict)
    title: str = "images"

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kinds = f", {len(self.classes)} classes" if self.labels is not None else ", no labels"
        return f"ImageSet({self.title!r}, {len(self)} images{kinds})"

    @property
    def fixed(self) -> bool:
        """Whether all are decoded and of one size, so that batches are cut out of one array."""
        return isinstance(self.store, ArrayStore)

    @property
    def names(self) -> list[str]:
        """What messages call each picture: its path where it has one."""
        return [self.store.name(row) for row in self.rows.tolist()]

    def pil(self, index: int, channels: int = 3) -> Image.Image:
        """A picture decoded, mode ``RGB`` or for one channel ``L``.

        Raises:
            DataError: The file is broken.
        """
        return self.store.image(int(self.rows[index]), channels)

    def subset(self, indices: Any) -> ImageSet:
        """These pictures in this order; a split that came with the data is left behind.

        Raises:
            DataError: An index is out of range.
        """
        index = torch.as_tensor(indices, dtype=torch.int64).flatten()
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise DataError(f"{self.title}: index {int(index.max())} is not one of the {len(self)} images")
        labels, groups, weights = (
            None if one is None else one[index] for one in (self.labels, self.groups, self.weights)
        )
        return replace(self, rows=self.rows[index], split=None, labels=labels, groups=groups, weights=weights)

    def with_classes(self, classes: Sequence[str]) -> ImageSet:
        """The same pictures with labels coded by another list of classes, that of a fitted model.

        Raises:
            DataError: A picture's class is not among them.
        """
        if self.labels is None:
            raise DataError(f"{self.title}: has no labels to compare with the classes")
        labels = recode(self.labels, self.classes, tuple(classes), self.title)
        return replace(self, labels=labels, classes=tuple(classes))

    def counts(self) -> dict[str, int]:
        """Pictures of each class, classes without any included."""
        if self.labels is None:
            return {}
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    def fingerprint(self) -> str:
        """Hexadecimal digest of pictures, labels, classes and weights."""
        digest = hashlib.sha256(self.store.digest().encode())
        digest.update(self.rows.numpy().tobytes())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes() + "\0".join(self.classes).encode())
        if self.weights is not None:
            digest.update(b"weights" + self.weights.numpy().tobytes())
        return digest.hexdigest()

    def describe(self) -> str:
        """Some lines: how many, of which classes, sizes and modes, what was left out, what looks wrong."""
        lines = [f"{self.title}: {len(self)} images"]
        if self.labels is not None:
            lines.append(_classes(self.counts()))
        lines += self._shapes()
        if self.split is not None:
            lines.append(self.split.describe())
        if self.skipped:
            lines.append(f"left out: {_some(self.skipped)}")
        return "\n".join(lines)

    def _shapes(self) -> list[str]:
        if isinstance(self.store, ArrayStore):
            channels, height, width = self.store.pixels.shape[1:]
            return [f"sizes: all {width}x{height}", f"channels: {channels}"]
        found = [self.facts[row] for row in self.rows.tolist() if row in self.facts]
        if not found:
            return []
        sizes = Counter(f"{width}x{height}" for width, height, _ in found)
        modes = Counter(mode for *_, mode in found)
        sides = np.array([fact[:2] for fact in found])
        low, high = sides.min(0), sides.max(0)
        text = f"sizes: {_common(sizes)}"
        if len(sizes) > 1:
            text += f"; widths {low[0]} to {high[0]}, heights {low[1]} to {high[1]}"
        return [text, f"modes: {_common(modes)}"]


def _classes(counts: Mapping[str, int]) -> str:
    text = f"classes: {_common(Counter(counts), shown=10)}"
    rare = [name for name, count in counts.items() if count < 2]
    return text + (f"; with fewer than two images: {_some(rare)}" if rare else "")


def _common(counts: Counter[str], shown: int = 3) -> str:
    parts = [f"{name} ({count})" for name, count in counts.most_common(shown)]
    more = f" and {len(counts) - shown} more" if len(counts) > shown else ""
    return ", ".join(parts) + more


def _some(names: Sequence[str], shown: int = 10) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
