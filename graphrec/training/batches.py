"""Batches as pytrees: their rows, their way to the device, the names of their tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from graphrec.errors import DataError

from .interfaces import BatchSource


def count_rows(batch: Any) -> int:
    """Number of examples: the length of ``batch.labels`` if there are labels, else of the first tensor."""
    labels = getattr(batch, "labels", None)
    if isinstance(labels, Tensor):
        return len(labels)
    leaves = pytree.tree_leaves(batch)
    return next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim), 1)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with all tensors on ``device``; to a GPU through pinned memory, without waiting."""
    if device.type == "cpu":
        return batch

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.device == device:
            return leaf
        pinned = leaf.pin_memory() if device.type == "cuda" else leaf
        return pinned.to(device, non_blocking=True)

    return pytree.tree_map(move, batch)


def device_batches(source: BatchSource, epoch: int, start_step: int, device: torch.device) -> Iterator[Any]:
    """Batches ``start_step`` to ``source.steps`` on the device, the next one on its way while one is used.

    Raises:
        DataError: The source ends before its ``steps``.
    """
    if start_step >= source.steps:
        return
    count, waiting = start_step, deque[Any]()
    for batch in islice(source.epoch(epoch, start_step), source.steps - start_step):
        waiting.append(to_device(batch, device))
        count += 1
        if device.type == "cpu" or len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
    if count < source.steps:
        raise DataError(
            f"the batch source promised {source.steps} batches and ended after {count} in epoch {epoch + 1}"
        )


class FirstBatch:
    """The first batch of another source."""

    def __init__(self, source: BatchSource) -> None:
        self.source, self.steps = source, min(1, source.steps)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        """That batch."""
        return islice(self.source.epoch(epoch, start_step), 1)


def named_tensors(batch: Any) -> dict[str, Tensor]:
    """The tensors of a batch on the CPU under their paths, such as ``features.numeric``."""
    paths, _ = pytree.tree_flatten_with_path(batch)
    return {
        pytree.keystr(path).strip(".").strip("[]'") or "batch": leaf.detach().cpu()
        for path, leaf in paths
        if isinstance(leaf, Tensor)
    }
