"""Plans: which tiles of queries and keys hold a visible pair, and which keys a group of queries needs.

Both start from *rows*: the positions in the order in which they are worked on, cut into tiles and padded with
-1. A grid pattern groups neighbours, so that a tile is a piece of the image and meets few other tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from math import ceil
from typing import Any

import torch
from torch import Tensor

from ..remembered import kept
from .base import Folding, Pattern
from .combine import And, Or
from .folds import places
from .lists import block_partition, unique_lists
from .sequence import Streaming

_CHUNK = 1 << 23
"""Pairs judged at once while a plan is made."""


def _moved(plan: Any, device: torch.device) -> Any:
    held = {item.name: getattr(plan, item.name) for item in fields(plan)}
    return replace(plan, **{name: one.to(device) for name, one in held.items() if isinstance(one, Tensor)})


@dataclass(frozen=True, eq=False)
class TilePlan:
    """Tiles with a visible pair, in compressed rows over query tiles and over key tiles.

    Plans of different batch entries and heads follow each other: the tiles of query tile ``t`` for batch
    entry ``b`` and head ``h`` are ``ptr[g * Nq + t]`` to ``ptr[g * Nq + t + 1]`` with ``g = b * batch_step +
    h * head_step``.

    Attributes:
        q_rows, k_rows: positions of each tile, int32 (Nq, bm) and (Nk, bn), -1 beyond the end.
        ptr, col, slot: key tiles per query tile; ``slot`` is -1 for a full tile, else its row in ``bits``.
        t_ptr, t_row, t_slot: query tiles per key tile.
        bits: visibility of partial tiles, one bit per pair, int32 (S, bm, bn / 32).
        soft: pairs that get the pattern's penalty, like ``bits``, or None.
        batch_step, head_step: how to find a batch entry's and a head's plan.
        pairs: visible pairs over all plans.
    """

    q_len: int
    k_len: int
    q_rows: Tensor
    k_rows: Tensor
    ptr: Tensor
    col: Tensor
    slot: Tensor
    t_ptr: Tensor
    t_row: Tensor
    t_slot: Tensor
    bits: Tensor
    soft: Tensor | None
    batch_step: int
    head_step: int
    groups: int
    pairs: int

    @property
    def density(self) -> float:
        """Share of pairs that are visible."""
        total = self.groups * self.q_len * self.k_len
        return self.pairs / total if total else 0.0

    @property
    def tile_density(self) -> float:
        """Share of tiles that are computed: what the work grows with."""
        total = self.groups * self.q_rows.shape[0] * self.k_rows.shape[0]
        return self.col.numel() / total if total else 0.0

    def to(self, device: torch.device) -> TilePlan:
        """The same plan with its tensors on a device."""
        return _moved(self, device)

    @cached_property
    def entry(self) -> Tensor:
        """The query tile (with its plan) of every entry of ``col``, int64."""
        return torch.repeat_interleave(
            torch.arange(len(self.ptr) - 1, device=self.ptr.device), self.ptr.diff().long()
        )


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """Groups of queries with the keys that they see between them.

    Attributes:
        q_index: positions of each group, int64 (N, m), -1 beyond the end; every query is in one group.
        k_index: keys of each group, int64 (B', H', N, n), -1 for none.
        mask: visible pairs, bool (B', H', N, m, n), or None when all are.
        penalty: pairs with the pattern's penalty, bool (N, m, n), or None.
        inverse: where each query stands in the flattened ``q_index``, int64 (Lq,).
        folding: how a reshape and a transposition make the groups, see :meth:`Pattern.folding`, or None.
    """

    q_index: Tensor
    k_index: Tensor
    mask: Tensor | None
    penalty: Tensor | None
    inverse: Tensor
    folding: Folding | None

    @property
    def pairs(self) -> int:
        """Pairs computed for one batch entry and head."""
        return self.q_index.numel() * self.k_index.shape[-1]

    def to(self, device: torch.device) -> BlockPlan:
        """The same plan with its tensors on a device."""
        return _moved(self, device)


def _rows(pattern: Pattern, length: int, size: int) -> Tensor:
    """Positions in working order, int64 (N, size) padded with -1.

    Groups that fit are packed whole into a tile; larger ones follow each other without gaps.
    """
    groups = pattern.partition(length)
    if groups is None or length == 0:
        return block_partition(length, size)
    width = groups.shape[1]
    if 2 * int((groups >= 0).sum()) < groups.numel() or width > size:
        flat = groups.flatten()
        return _fill(flat[flat >= 0], size)
    fit = size // width
    rows = groups.new_full((ceil(len(groups) / fit), fit * width), -1)
    rows.view(-1, width)[: len(groups)] = groups
    return torch.nn.functional.pad(rows, (0, size - fit * width), value=-1)


def _fill(flat: Tensor, size: int) -> Tensor:
    short = -len(flat) % size
    return torch.nn.functional.pad(flat, (0, short), value=-1).view(-1, size)


def _reach(pattern: Pattern, q_rows: Tensor, k_rows: Tensor, q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
    """Tiles that may hold a visible pair, and tiles that are surely full: two bool (Nq, Nk)."""
    parts = pattern.cover()
    if len(parts) > 1:
        may, sure = zip(*(_reach(one, q_rows, k_rows, q_len, k_len) for one in parts), strict=True)
        join = torch.all if isinstance(pattern, And) else torch.any
        join_sure = torch.any if isinstance(pattern, Or | Streaming) else torch.all
        return join(torch.stack(may), 0), join_sure(torch.stack(sure), 0)
    return _reach_by_bounds(pattern, q_rows, k_rows, q_len, k_len)


def _reach_by_bounds(
    pattern: Pattern, q_rows: Tensor, k_rows: Tensor, q_len: int, k_len: int
) -> tuple[Tensor, Tensor]:
    low, high = pattern.bounds(q_len, k_len)
    none, real = q_rows < 0, q_rows.clamp(min=0)
    first, stop = low[real], high[real]
    empty = none | (first >= stop)
    k_min = torch.where(k_rows < 0, k_len, k_rows).amin(1)
    k_max = k_rows.amax(1)
    may = (k_max >= first.masked_fill(empty, k_len).amin(1)[:, None]) & (
        k_min < stop.masked_fill(empty, 0).amax(1)[:, None]
    )
    if not pattern.interval:
        return may, torch.zeros_like(may)
    inner = (k_min >= first.masked_fill(none, 0).amax(1)[:, None]) & (
        k_max < stop.masked_fill(none, k_len).amin(1)[:, None]
    )
    return may, inner & (k_rows >= 0).all(1) & may


def _pack(seen: Tensor) -> Tensor:
    """bool (T, m, n) to int32 (T, m, n / 32), key ``32 w + i`` in bit ``i`` of word ``w``."""
    words = seen.view(*seen.shape[:2], seen.shape[2] // 32, 32).long() << torch.arange(32, device=seen.device)
    total = words.sum(-1)
    return torch.where(total >= 1 << 31, total - (1 << 32), total).int()


def _judge(
    pattern: Pattern, tiles: Tensor, q_rows: Tensor, k_rows: Tensor, q_len: int, k_len: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Visible pairs (T, m, n) of candidate tiles (b, h, query tile, key tile), and their penalty."""
    step = max(1, _CHUNK // (q_rows.shape[1] * k_rows.shape[1]))
    for part in tiles.split(step):
        b, h = part[:, 0].view(-1, 1, 1), part[:, 1].view(-1, 1, 1)
        q, k = q_rows[part[:, 2]].unsqueeze(-1), k_rows[part[:, 3]].unsqueeze(-2)
        real = (q >= 0) & (k >= 0)
        q, k = q.clamp(min=0), k.clamp(min=0)
        seen = pattern.visible(b, h, q, k, q_len, k_len) & real
        soft = pattern.penalty(q, k, q_len, k_len)
        yield seen, torch.zeros_like(seen) if soft is None else soft & seen


def _compress(group: Tensor, count: int) -> Tensor:
    """Row pointers of sorted group numbers, int32 (count + 1,)."""
    return torch.nn.functional.pad(torch.bincount(group, minlength=count).cumsum(0), (1, 0)).int()


def _make_tiles(pattern: Pattern, q_len: int, k_len: int, bm: int, bn: int) -> TilePlan:
    pattern.check(q_len, k_len)
    q_rows, k_rows = _rows(pattern, q_len, bm), _rows(pattern, k_len, bn)
    may, sure = _reach(pattern, q_rows, k_rows, q_len, k_len)
    groups = pattern.batch * pattern.heads
    candidates = may.expand(pattern.batch, pattern.heads, *may.shape).nonzero()
    judged = ~sure[candidates[:, 2], candidates[:, 3]]
    slot = torch.full((len(candidates),), -1)
    keep = torch.ones(len(candidates), dtype=torch.bool)
    words, soft_words, seen_pairs = [], [], 0
    for seen, soft in _judge(pattern, candidates[judged], q_rows, k_rows, q_len, k_len):
        words.append(_pack(seen))
        soft_words.append(_pack(soft))
        seen_pairs += int(seen.sum())
    if words:
        slot, keep, bits = _slots(judged, torch.cat(words), torch.cat(soft_words), q_rows, candidates)
    else:
        bits = torch.zeros(0, 2, bm, bn // 32, dtype=torch.int32)
    inner = (q_rows[candidates[~judged, 2]] >= 0).sum() * bn
    tiles, slot = candidates[keep], slot[keep]
    number = tiles[:, 0] * pattern.heads + tiles[:, 1]
    by_query, by_key = number * len(q_rows) + tiles[:, 2], number * len(k_rows) + tiles[:, 3]
    turned = torch.argsort(by_key, stable=True)
    return TilePlan(
        q_len=q_len,
        k_len=k_len,
        q_rows=q_rows.int(),
        k_rows=k_rows.int(),
        ptr=_compress(by_query, groups * len(q_rows)),
        col=tiles[:, 3].int(),
        slot=slot.int(),
        t_ptr=_compress(by_key, groups * len(k_rows)),
        t_row=tiles[turned, 2].int(),
        t_slot=slot[turned].int(),
        bits=bits[:, 0].contiguous(),
        soft=bits[:, 1].contiguous() if bool(bits[:, 1].any()) else None,
        batch_step=pattern.heads if pattern.batch > 1 else 0,
        head_step=1 if pattern.heads > 1 else 0,
        groups=groups,
        pairs=seen_pairs + int(inner),
    )


def _slots(
    judged: Tensor, words: Tensor, soft: Tensor, q_rows: Tensor, tiles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Each candidate's row in the table of distinct bit tiles, which candidates to keep, and the table."""
    some = words.flatten(1).any(1)
    real = (q_rows[tiles[judged, 2]] >= 0).unsqueeze(-1)
    whole = ((words == -1) | ~real).flatten(1).all(1) & ~soft.flatten(1).any(1)
    both = torch.stack([words, soft], 1)  # [T, 2, bm, words]
    partial = some & ~whole
    table, inverse = torch.unique(both[partial].flatten(1), dim=0, return_inverse=True)
    slot = torch.full((len(tiles),), -1)
    place = judged.nonzero().squeeze(1)
    slot[place[partial]] = inverse
    keep = torch.ones(len(tiles), dtype=torch.bool)
    keep[place[~some]] = False
    return slot, keep, table.view(-1, *both.shape[1:])


def _group_keys(pattern: Pattern, q_index: Tensor, q_len: int, k_len: int) -> Tensor:
    """Keys that each group sees, int64 (B', H', N, n) padded with -1; B' and H' exceed 1 for lists."""
    listed = pattern.lists(q_index, k_len)
    if listed is not None:
        return listed
    low, high = pattern.bounds(q_len, k_len)
    real = q_index.clamp(min=0)
    blank = (q_index < 0) | (low >= high)[real]
    first = low[real].masked_fill(blank, k_len).amin(1)
    width = int((high[real].masked_fill(blank, 0).amax(1) - first).amax().clamp(min=0)) if len(q_index) else 0
    keys = first[:, None] + torch.arange(max(width, 1))
    keys = torch.where(keys < k_len, keys, -1)
    if pattern.interval or width == 0 or k_len == 0:
        return keys[None, None]
    used = [_used(pattern, q, k, q_len, k_len) for q, k in _group_chunks(q_index, keys)]
    return unique_lists(torch.where(torch.cat(used), keys, -1))[None, None]


def _group_chunks(q_index: Tensor, keys: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    step = max(1, _CHUNK // max(1, q_index.shape[1] * keys.shape[-1]))
    return zip(q_index.split(step), keys.split(step), strict=True)


def _used(pattern: Pattern, q: Tensor, k: Tensor, q_len: int, k_len: int) -> Tensor:
    """Keys (N, n) that any query of its group (N, m) sees in any batch entry and head: bool (N, n)."""
    return _group_mask(pattern, q, k[None, None], q_len, k_len).any(-2).flatten(0, 1).any(0)


def _group_mask(pattern: Pattern, q_index: Tensor, k_index: Tensor, q_len: int, k_len: int) -> Tensor:
    """Visible pairs of groups, bool (B', H', N, m, n)."""
    b = torch.arange(pattern.batch, device=q_index.device).view(-1, 1, 1, 1, 1)
    h = torch.arange(pattern.heads, device=q_index.device).view(1, -1, 1, 1, 1)
    q, k = q_index.unsqueeze(-1), k_index.unsqueeze(-2)
    seen = pattern.visible(b, h, q.clamp(min=0), k.clamp(min=0), q_len, k_len)
    return (seen & (k >= 0) & (q >= 0)).expand(pattern.batch, pattern.heads, *q.shape[:2], k.shape[-1])


def _make_blocks(pattern: Pattern, q_len: int, k_len: int) -> BlockPlan:
    pattern.check(q_len, k_len)
    q_index = pattern.partition(q_len)
    if q_index is None:
        q_index = block_partition(q_len, min(64, max(q_len, 1)))
    folding = pattern.folding(q_len) if q_len == k_len else None
    folded = folding is not None  # keys then stand in the order of the queries
    k_index = q_index[None, None] if folded else _group_keys(pattern, q_index, q_len, k_len)
    mask = None
    if not folded or pattern.parted:
        mask = _group_mask(pattern, q_index, k_index, q_len, k_len)
        mask = None if bool((mask | (q_index < 0).unsqueeze(-1)).all()) else mask
    soft = pattern.penalty(
        q_index.clamp(min=0).unsqueeze(-1), k_index[0, 0].clamp(min=0).unsqueeze(-2), q_len, k_len
    )
    inverse = _places(q_index, q_len) if folding is None else places(folding)
    return BlockPlan(q_index, k_index, mask, soft, inverse, folding)


def _places(q_index: Tensor, q_len: int) -> Tensor:
    """Where each query stands in the flattened groups, int64 (Lq,)."""
    real = q_index.flatten() >= 0
    inverse = torch.empty(q_len, dtype=torch.int64)
    inverse[q_index.flatten()[real]] = real.nonzero().squeeze(1)
    return inverse


def _remembered(make: Callable[..., Any], pattern: Pattern, *sizes: int, device: torch.device) -> Any:
    """A plan from memory when the pattern is a value; made on the spot when it holds tensors."""
    if pattern.static:
        return _memory(make, pattern, sizes, device)
    moved = kept(make)(pattern, *sizes)
    return moved if device.type == "cpu" else moved.to(device)


@lru_cache(maxsize=64)
@kept
def _memory(make: Callable[..., Any], pattern: Pattern, sizes: tuple[int, ...], device: torch.device) -> Any:
    if device.type != "cpu":
        return _memory(make, pattern, sizes, torch.device("cpu")).to(device)
    return make(pattern, *sizes)


def tile_plan(pattern: Pattern, q_len: int, k_len: int, bm: int, bn: int, device: torch.device) -> TilePlan:
    """The plan for a tile size; see :meth:`Pattern.tiles`.

    Raises:
        ValueError: lengths that do not fit the pattern, or ``bn`` not a multiple of 32.
    """
    if bn % 32 or bm < 1:
        raise ValueError(f"bn={bn} must be a multiple of 32 and bm={bm} at least 1")
    return _remembered(_make_tiles, pattern, q_len, k_len, bm, bn, device=device)


def block_plan(pattern: Pattern, q_len: int, k_len: int, device: torch.device) -> BlockPlan:
    """The plan of groups; see :meth:`Pattern.blocks`."""
    return _remembered(_make_blocks, pattern, q_len, k_len, device=device)
