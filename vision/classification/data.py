"""What people hand to an estimator of images, as sets of images in parts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import ConfigError, DataError
from graphrec.module_estimator import check_split
from graphrec.pipelines.images import ImageSet, open_images, split_images
from graphrec.pipelines.images.labels import typed_classes
from graphrec.pipelines.index_splits import PARTS, IndexSplit


@dataclass(frozen=True)
class Parts:
    """Images to train on, to stop by and to measure on.

    Attributes:
        train: Labelled.
        valid: Labelled, or None.
        test: Labelled, or None.
        classes: (C,) as the user writes them, in the order of their codes.
    """

    train: ImageSet
    valid: ImageSet | None
    test: ImageSet | None
    classes: NDArray[Any]

    def items(self) -> Iterator[tuple[str, ImageSet]]:
        """The parts that there are, by name."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return ((name, part) for name, part in parts.items() if part is not None)

    def fingerprint(self) -> str:
        """Tells whether the data are the same."""
        return "-".join(part.fingerprint()[:16] for _, part in self.items())

    def counts(self) -> NDArray[np.int64]:
        """Training images of each class, int64 (C,)."""
        return np.bincount(labels_of(self.train), minlength=len(self.classes))


def open_parts(
    X: Any,
    y: Any,
    *,
    validation: Any,
    test: Any,
    seed: int,
    split: IndexSplit | None = None,
    sample_weight: Any = None,
    columns: Mapping[str, Any],
) -> Parts:
    """Read the images and divide them.

    Args:
        X: What `open_images` takes, or a single image.
        y: (N,) labels of arrays and lists, or None.
        validation: Share of the images, or what ``X`` can be.
        test: The same.
        seed: Of the division.
        split: A division that is there; images in no part are not looked at.
        sample_weight: Weights of the images (N,), or None. Those of weight zero are in no part.
        columns: Further arguments of `open_images`: names of columns, ``root``.

    Raises:
        DataError: The data cannot be used, or the training images are all of one class.
        ConfigError: A share is not one.
    """
    images, classes = open_labelled(X, y, columns=columns, sample_weight=sample_weight)
    given = {"valid": validation, "test": test}
    shares = {part: _share(part, value) for part, value in given.items()}
    if split is None:
        split = split_images(images, shares["valid"] or 0.0, shares["test"] or 0.0, seed=seed)
    split = check_split(split, len(images), "images")
    parts = {part: images.subset(getattr(split, part)) for part in PARTS if len(getattr(split, part))}
    for part, share in shares.items():
        if share is None:
            parts[part] = open_labelled(given[part], None, columns=columns, classes=classes)[0]
    parts = {part: _counting(part, images) for part, images in parts.items()}
    found = Parts(parts["train"], parts.get("valid"), parts.get("test"), classes)
    if (found.counts() > 0).sum() < 2:
        only = classes[int(found.counts().argmax())]
        raise DataError(f"{images.title}: all training images are of class {only}; there must be two or more")
    return found


def _counting(part: str, images: ImageSet) -> ImageSet:
    """The images that have a weight."""
    if images.weights is None or bool(images.weights.all()):
        return images
    kept = images.weights.nonzero().flatten()
    if not len(kept):
        raise DataError(f"{images.title}: all images of the {part} part have weight zero")
    return images.subset(kept)


def _share(name: str, value: Any) -> float | None:
    """A share of the images; None for images of their own."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value < 1:
        raise ConfigError(f"{name}: {value!r} is no share of the images, which is at least 0 and below 1")
    return float(value)


def open_labelled(
    X: Any,
    y: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    classes: NDArray[Any] | None = None,
    sample_weight: Any = None,
) -> tuple[ImageSet, NDArray[Any]]:
    """Images with labels, coded by ``classes`` where they are known; and the classes.

    Raises:
        DataError: The images or labels cannot be used.
        ConfigError: ``y`` is given beside images that bring their own labels.
    """
    names = None if classes is None else tuple(map(str, classes))
    more = {**(columns or {}), "sample_weight": sample_weight}
    if y is None:
        images = _opened(X, classes=names, **more)
        labels_of(images)
        return images, np.asarray(typed_classes(images.classes, images.kind)) if classes is None else classes
    if isinstance(X, ImageSet):
        raise ConfigError(f"y: {X.title} brings its own labels; leave y out")
    y = _labels(y)
    if classes is None:
        classes = np.unique(y)
        names = tuple(map(str, classes))
    images = _opened(X, [str(one) for one in y], classes=names, **more)
    return images, classes


def _labels(y: Any) -> NDArray[Any]:
    """Labels (N,), none of them missing."""
    found = np.asarray(y)
    if found.ndim != 1:
        raise DataError(f"y: an array of shape {found.shape} must be (images,), with a label for each")
    if found.dtype.kind in "Of":  # None, or NaN, which differs from itself
        missing = [place for place, one in enumerate(found) if one is None or one != one]
        if missing:
            raise DataError(f"y: image {missing[0]} has no label; label it or leave it out")
    return found


def open_unlabelled(X: Any, *, columns: Mapping[str, Any] | None = None) -> ImageSet:
    """Images whose labels, if there are any, are not looked at."""
    return _opened(X, labelled=False, **(columns or {}))


def _opened(X: Any, labels: Any = None, **more: Any) -> ImageSet:
    """`open_images`, with a warning of what is left out where the caller does not see it."""
    images = open_images(one_or_many(X), labels, **more)
    if images.skipped and not isinstance(X, ImageSet):
        count = len(images.skipped)
        shown = ", ".join(images.skipped[:10]) + (f" and {count - 10} more" if count > 10 else "")
        warnings.warn(f"{images.title}: left out {count} images that cannot be read: {shown}", stacklevel=4)
    return images


def labels_of(images: ImageSet) -> NDArray[np.int64]:
    """Codes of the classes, int64 (N,).

    Raises:
        DataError: There are none.
    """
    if images.labels is None:
        raise DataError(f"{images.title}: has no labels; name their column with label=, or pass y")
    return images.labels.numpy()


def weights_of(images: ImageSet) -> NDArray[np.float32] | None:
    """Weights (N,), or None."""
    return None if images.weights is None else images.weights.numpy()


def one_or_many(X: Any) -> Any:
    """A single picture in memory, PIL's or an array (H, W, 3), as a list or batch of one."""
    if hasattr(X, "convert") and hasattr(X, "getbands"):
        return [X]
    if hasattr(X, "ndim") and hasattr(X, "shape") and X.ndim == 3 and X.shape[-1] == 3:
        return X[None]
    return X
