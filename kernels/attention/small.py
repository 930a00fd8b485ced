"""Attention within many small groups on CUDA: for which patterns, how groups are shared out, launches."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import padded
from ..patterns import TilePlan, decode
from ..remembered import kept
from .bias import flat_places
from .launch import Layout, layout
from .settings import GroupConfig, group_config

_PROGRAMS = 2048
"""Programs that fill a GPU several times; with more groups a program does more of them."""


class Groups(NamedTuple):
    """Groups sorted by kind; groups of a kind have the same mask and the same distances, pair by pair.

    ``q_tile`` and ``k_tile`` int32 (E,) are tiles of the plan, ``first`` (K + 1,) where kinds begin, ``slot``
    (K,) their bits, ``column`` int64 (K, size * size) the table's column of each pair, one past the last
    where there is none.
    """

    plan: TilePlan
    q_tile: Tensor
    k_tile: Tensor
    first: list[int]
    slot: list[int]
    column: Tensor
    q_place: Tensor
    k_place: Tensor
    covered: bool
    penalty: float


class Small(NamedTuple):
    """What the kernels of one call need, but for the table's numbers.

    ``lists``, ``steps`` and ``constants`` are the plan, the strides and the constants, as both kernels take
    them.
    """

    groups: Groups
    config: GroupConfig
    work: Tensor
    kinds: Tensor
    most: int
    lists: tuple[Tensor, ...]
    steps: tuple[int, ...]
    constants: dict[str, Any]


@lru_cache(maxsize=64)
@kept
def _width(text: str, length: int) -> int | None:
    """Positions per group of a pattern's partition, or None where it has none."""
    groups = decode(text).partition(length) if length else None
    return None if groups is None else groups.shape[1]


@lru_cache(maxsize=64)
@kept
def _groups(text: str, q_len: int, k_len: int, size: int, window: str, device: torch.device) -> Groups | None:
    """The groups, or None where a tile of queries meets several tiles of keys or the other way round."""
    pattern = decode(text)
    plan = pattern.tiles(q_len, k_len, size, size)
    many = [bool((ptr.diff() > 1).any()) for ptr in (plan.ptr, plan.t_ptr)]
    if plan.groups != 1 or any(many):
        return None
    sizes = tuple(map(int, window.split(","))) if window else (1,) * len(pattern.extent(q_len, k_len))
    q_place, k_place = flat_places(pattern, sizes, q_len, k_len, torch.device("cpu"))
    columns = torch.Size(2 * one - 1 for one in sizes).numel()
    rows, cols = plan.q_rows[plan.entry].long(), plan.k_rows[plan.col.long()].long()
    column = q_place[rows.clamp(min=0)].unsqueeze(-1) - k_place[cols.clamp(min=0)].unsqueeze(-2)
    real = (rows >= 0).unsqueeze(-1) & (cols >= 0).unsqueeze(-2) & (column >= 0) & (column < columns)
    column = torch.where(real, column, columns).flatten(1) if window else column.flatten(1) * 0
    keys = torch.cat([plan.slot.long().unsqueeze(1), column], 1)
    found, kind = torch.unique(keys, dim=0, return_inverse=True)
    order = torch.argsort(kind, stable=True)
    first = torch.nn.functional.pad(torch.bincount(kind, minlength=len(found)).cumsum(0), (1, 0))
    return Groups(
        plan.to(device),
        plan.entry[order].int().to(device),
        plan.col[order].to(device),
        first.tolist(),
        found[:, 0].tolist(),
        found[:, 1:].to(device),
        q_place.int().to(device),
        k_place.int().to(device),
        len(plan.q_rows) == len(plan.k_rows) == len(plan.col),
        pattern.penalty_value,
    )


@lru_cache(maxsize=64)
@kept
def _work(
    first: tuple[int, ...], slot: tuple[int, ...], batch: int, most: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Each program's (start, count, first job, slot), int32 (programs, 4), and its kind."""
    rows = [
        (low, high - low, job, slot[kind], kind)
        for kind, (low, high) in enumerate(pairwise(first))
        for job in range(0, batch * (high - low), most)
    ]
    made = torch.tensor(rows, dtype=torch.int32).view(-1, 5)
    return made[:, :4].contiguous().to(device), made[:, 4].long().to(device)


def small_for(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    times: Tensor | None,
    text: str,
    windows: str,
    flat: bool,
) -> Small | None:
    """What to launch, or None for a call that these kernels are not for.

    They take static patterns that cut queries and keys into groups of up to 64, as many heads of keys as of
    queries, and no numbers per pair but a table that is the same for all queries and batch entries.
    """
    window = windows.split(";")[0]
    table = bias is not None and window and bias.shape[0] == bias.shape[2] == 1
    if times is not None or flat or q.shape[1] != k.shape[1] or (bias is not None and not table):
        return None
    columns = None if bias is None else (bias.shape[1], bias.shape[3])
    return _remembered(text, window, layout(q), layout(k), layout(v), columns, q.device, interpreting())


@lru_cache(maxsize=256)
@kept
def _remembered(
    text: str,
    window: str,
    q: Layout,
    k: Layout,
    v: Layout,
    columns: tuple[int, int] | None,
    device: torch.device,
    interpreted: bool,
) -> Small | None:
    """``columns`` are heads and columns of the table."""
    batch, heads, q_len, dim = q.shape
    width = _width(text, q_len)
    config = None if width is None else group_config(width, max(dim, v.shape[3]), q.dtype, interpreted)
    if config is None:
        return None
    groups = _groups(text, q_len, k.shape[2], config.size, window, device)
    if groups is None or not batch:
        return None
    most = max(config.tiles, -(-batch * len(groups.q_tile) * heads // _PROGRAMS))
    work, kinds = _work(tuple(groups.first), tuple(groups.slot), batch, most, device)
    plan = groups.plan
    soft = plan.bits if plan.soft is None else plan.soft
    places = groups.q_place, groups.k_place
    lists = (plan.q_rows, plan.k_rows, groups.q_tile, groups.k_tile, work, plan.bits, soft, *places)
    head_step, ends = (0, 1) if columns is None else (columns[1] if columns[0] > 1 else 0, columns[1])
    steps = (*q.stride, *k.stride, *v.stride, head_step, ends)
    constants = {
        "BIAS": columns is not None,
        "SOFT": plan.soft is not None,
        "SIZE": config.size,
        "BD": padded(dim),
        "BE": padded(v.shape[3]),
        "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
        "INTERPRET": interpreted,
        "WIDE": any(one.span >= 1 << 31 for one in (q, k, v)),
        "num_warps": config.warps,
        "num_stages": 1,
    }
    return Small(groups, config, work, kinds, most, lists, steps, constants)


def table_rows(bias: Tensor | None) -> Tensor | None:
    """The table (H or 1, columns) as the kernels read it."""
    return None if bias is None else bias[0, :, 0].contiguous()


def forward(
    small: Small, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp; see :func:`graphrec.kernels.attention.triton.tile_attention`."""
    from . import small_kernels

    table = table_rows(bias)

    batch, heads, q_len, dim = q.shape
    out = q.new_empty(batch, heads, q_len, v.shape[3])
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32)
    if not small.groups.covered:
        out.zero_()
        lse.fill_(-torch.inf)
    programs = len(small.work)
    if programs:
        small_kernels.forward[(programs * heads,)](
            q, k, v, q if table is None else table, out, lse, *small.lists, *small.steps,
            scale, small.groups.penalty, batch, heads, q_len, programs, small.most, dim, v.shape[3],
            **small.constants,
        )  # fmt: skip
    return out, lse


def backward(
    small: Small,
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    table_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the table (H or 1, columns), the last empty unless asked for.

    ``grad`` (B, H, Lq, Dv) and ``delta`` (B, H, Lq) are contiguous.
    """
    from . import small_kernels

    batch, heads, q_len, dim = q.shape
    make = torch.empty if small.groups.covered else torch.zeros
    dq, dk, dv = (make(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
    programs, size = len(small.work), small.config.size
    tiles = torch.empty((heads, programs, size, size) if table_grad else (0,), device=q.device)
    table = table_rows(bias)
    if programs:
        small_kernels.backward[(programs * heads,)](
            q, k, v, q if table is None else table, grad, lse, delta, dq, dk, dv, tiles,
            *small.lists, *small.steps,
            scale, small.groups.penalty, batch, heads, q_len, k.shape[2], programs, small.most,
            dim, v.shape[3], SUM=table_grad, **small.constants,
        )  # fmt: skip
    if not table_grad or table is None:
        return dq, dk, dv, q.new_empty(0)
    return dq, dk, dv, _table_gradient(small, tiles, table)


def _table_gradient(small: Small, tiles: Tensor, table: Tensor) -> Tensor:
    """Sums over programs of a kind, then over the pairs of a distance."""
    groups, heads = small.groups, tiles.shape[0]
    by_kind = tiles.new_zeros(heads, len(groups.slot), groups.column.shape[1])
    by_kind.index_add_(1, small.kinds, tiles.flatten(2))
    total = tiles.new_zeros(heads, table.shape[1] + 1)
    total.index_add_(1, groups.column.flatten(), by_kind.flatten(1))
    total = total[:, :-1]
    return (total if table.shape[0] == heads else total.sum(0, keepdim=True)).to(table.dtype)
