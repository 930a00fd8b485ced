"""Which pictures train, validate and test: as the data say, by whole groups, or at random within classes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.errors import ConfigError

from ..index_splits import IndexSplit, draw_groups, random_parts, with_validation
from .container import ImageSet


def split_images(
    images: ImageSet, valid: float = 0.1, test: float = 0.0, *, seed: int = 0, stratify: bool = True
) -> IndexSplit:
    """Divide a set.

    A split that came with the data is taken; where it has no validation part, ``valid`` of its training part
    becomes one. With groups, whole groups are drawn. Else pictures are drawn, within each class if
    ``stratify``; the only pictures of a class train.

    Args:
        images: The set.
        valid: Share that validates.
        test: Share that tests; not used where the data came with a split.
        seed: Of the draw.
        stratify: Whether the parts keep the proportions of the classes.

    Raises:
        ConfigError: The shares leave nothing to train on, or there are too few groups.
    """
    labels = images.labels if images.labels is not None and stratify else images.rows.new_zeros(len(images))
    given = images.split
    if given is None:
        if images.groups is not None:
            return _by_group(images, images.groups, valid, test, seed)
        return _all_trained(random_parts(labels, valid, test, seed=seed, stratify=stratify), labels)
    if not len(given.train):
        raise ConfigError(f"{given.name}: no image is in its training part")
    if len(given.valid) or not valid:
        return given
    return _all_trained(with_validation(given, labels, valid, seed=seed), labels)


def _all_trained(split: IndexSplit, labels: Tensor) -> IndexSplit:
    """The same, but for one picture of each class of which none was drawn to train."""
    held = torch.cat([split.valid, split.test])
    untrained = held[~torch.isin(labels[held], labels[split.train])]
    if not len(untrained):
        return split
    first = [int(untrained[labels[untrained] == label][0]) for label in labels[untrained].unique()]
    moved = torch.tensor(first)
    valid, test = (part[~torch.isin(part, moved)] for part in (split.valid, split.test))
    return IndexSplit.of(torch.cat([split.train, moved]), valid, test, split.total, split.name)


def _by_group(images: ImageSet, groups: Tensor, valid: float, test: float, seed: int) -> IndexSplit:
    _, code = groups.unique(return_inverse=True)
    of = draw_groups(int(code.max()) + 1, valid, test, seed=seed, name=images.title)[code]
    train, valid_part, test_part = ((of == part).nonzero() for part in range(3))
    name = f"{images.title}: by group, seed {seed}"
    return IndexSplit.of(train, valid_part, test_part, len(images), name)
