"""Gradient of numbers per pair: computed tile by tile, then laid out as the tensor or summed by distance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..patterns import TilePlan
from .launch import Launch, Pairs


def pair_gradient(
    launch: Launch,
    of_times: bool,
    read: tuple[Tensor, ...],
    steps: tuple[int, ...],
    sizes: tuple[int, int, int, int],
    ends: tuple[int, int, int, int],
    scale: float,
    settings: dict[str, Any],
) -> Tensor:
    """Gradient of the bias, or of the factors on the probabilities, in that tensor's shape and dtype.

    ``sizes`` are batch, heads, query heads per key head, and queries; the rest are the kernels' arguments.
    """
    from . import triton_kernels

    plan, (batch, heads, share, q_len) = launch.plan, sizes
    pairs = launch.times if of_times else launch.bias
    per_batch = pairs.values.shape[0] > 1 and plan.batch_step == 0
    per_head = pairs.values.shape[1] > 1 and plan.head_step == 0
    batch_parts = batch if per_batch else _split(batch, len(plan.col)) if plan.batch_step == 0 else 1
    head_parts, entries = heads if per_head else 1, len(plan.col)
    size = batch_parts, head_parts, entries, launch.config.bm, launch.config.bn
    tiles = torch.empty(size, device=plan.col.device)
    if tiles.numel():
        triton_kernels.backward_bias[(entries * batch_parts * head_parts,)](
            *read, tiles, plan.q_rows, plan.k_rows, plan.entry.int(), *launch.plan_arguments()[3:], *steps,
            scale, launch.penalty, batch, heads, share, q_len, len(plan.q_rows), *ends,
            entries, batch_parts, head_parts, OF_TIMES=of_times, **settings,
        )  # fmt: skip
    return _laid_out(plan, pairs, tiles if per_batch else tiles.sum(0, keepdim=True))


def _split(batch: int, entries: int) -> int:
    """Into how many parts to cut a batch that is summed over, to fill a GPU with some 500 programs."""
    return max(1, min(batch, 512 // max(entries, 1)))


def _pair_rows(plan: TilePlan) -> tuple[Tensor, Tensor, Tensor]:
    """Query (E, bm, 1) and key (E, 1, bn) of every pair of every entry, int64, and which pairs exist."""
    rows = plan.q_rows[plan.entry % len(plan.q_rows)].long().unsqueeze(-1)
    cols = plan.k_rows[plan.col.long()].long().unsqueeze(-2)
    return rows, cols, (rows >= 0) & (cols >= 0)


def _groups_of(plan: TilePlan) -> tuple[Tensor, Tensor]:
    """Batch entry and head of every entry's plan; 0 where the plan is for all."""
    group = plan.entry // len(plan.q_rows)
    batch = group // plan.batch_step if plan.batch_step else torch.zeros_like(group)
    head = (group - batch * plan.batch_step) if plan.head_step else torch.zeros_like(group)
    return batch, head


def _laid_out(plan: TilePlan, pairs: Pairs, tiles: Tensor) -> Tensor:
    """Sums of the tiles (batch parts, head parts, E, bm, bn) over the pairs of each number."""
    values = pairs.values
    rows, cols, real = _pair_rows(plan)
    place = cols
    if pairs.kind == 2:
        place = pairs.q_place.long()[rows.clamp(min=0)] - pairs.k_place.long()[cols.clamp(min=0)]
        real = real & (place >= 0) & (place < values.shape[3])
    batch, head = (
        one if size > 1 else torch.zeros_like(one)
        for one, size in zip(_groups_of(plan), values.shape[:2], strict=True)
    )
    inner = place if values.shape[2] == 1 else rows * values.shape[3] + place
    size = values.shape[2] * values.shape[3]
    flat = (batch * values.shape[1] + head).view(-1, 1, 1) * size + inner
    total = tiles.new_zeros(values.numel() + 1)
    for number in range(tiles.shape[0] * tiles.shape[1]):
        i, j = divmod(number, tiles.shape[1])
        step = (i * values.shape[1] + j) * size
        total.index_add_(0, torch.where(real, flat + step, values.numel()).flatten(), tiles[i, j].flatten())
    return total[:-1].view(values.shape).to(values.dtype)
