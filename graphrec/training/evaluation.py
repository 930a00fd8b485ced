"""Predictions and metrics of a whole source, over one or several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphrec.metrics.growing import collect

from .batches import count_rows, device_batches
from .distributed import Ranks
from .interfaces import BatchSource, Metrics
from .placement import evaluating

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Predict = Callable[[Any], Tensor]


def _predictions(
    fabric: Fabric, model: nn.Module, predict: Predict, source: BatchSource
) -> Iterator[tuple[Any, Tensor]]:
    """Each batch with its predictions (B, T) in float32; the model is in evaluation mode meanwhile."""
    with evaluating(model):
        for batch in device_batches(source, 0, 0, fabric.device):
            if count_rows(batch):
                with torch.inference_mode():  # in float32: scores rounded to bfloat16 tie in every ranking
                    predicted = predict(batch)
                yield batch, predicted.float()


def evaluate(
    fabric: Fabric, ranks: Ranks, model: nn.Module, predict: Predict, source: BatchSource, metrics: Metrics
) -> dict[str, float | None]:
    """Metrics of ``source`` over all processes, the same in each.

    Args:
        fabric: For device and precision.
        ranks: The processes.
        model: Set to evaluation mode.
        predict: Its prediction, perhaps compiled.
        source: This process's part of the rows.
        metrics: An empty metrics object; it stays empty.
    """
    meter = copy.deepcopy(metrics)
    for batch, predicted in _predictions(fabric, model, predict, source):
        optional = (getattr(batch, name, None) for name in ("weights", "groups"))
        weights, groups = (None if t is None else t.cpu().numpy() for t in optional)
        meter.update(batch.labels.cpu().numpy(), predicted.cpu().numpy(), weights, groups)
    if ranks.world == 1:
        return meter.compute()
    states = ranks.collect(meter.state())
    for state in (states or [])[1:]:
        meter.merge(state)
    return ranks.share(meter.compute() if ranks.first else None)


def predict_all(
    fabric: Fabric, ranks: Ranks, model: nn.Module, predict: Predict, source: BatchSource
) -> NDArray[Any]:
    """Predictions (N, T) float32 of all rows, in the order of the source; the same in each process.

    Args:
        fabric: For device and precision.
        ranks: The processes; process r of R holds rows r, r + R, r + 2R ... of each batch.
        model: Set to evaluation mode.
        predict: Its prediction.
        source: This process's part of the rows.
    """
    found = _predictions(fabric, model, predict, source)
    rows, counts = collect(predicted.cpu().numpy() for _, predicted in found)
    if ranks.world > 1:
        mine = [] if rows is None else np.split(rows, np.cumsum(counts)[:-1])
        whole = _interleave(ranks.gather(mine))
        rows = np.concatenate(whole) if whole else None
    return np.zeros((0, 1), np.float32) if rows is None else rows


def _interleave(by_rank: list[list[NDArray[Any]]]) -> list[NDArray[Any]]:
    """Whole batches from the parts of each process; a process may lack the last one."""
    world, whole = len(by_rank), []
    for step in range(max(len(parts) for parts in by_rank)):
        parts = [parts[step] for parts in by_rank if step < len(parts)]
        batch = np.empty((sum(len(p) for p in parts), *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            batch[rank::world] = part
        whole.append(batch)
    return whole
