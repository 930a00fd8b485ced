"""Attention on CUDA: the tile kernels behind torch operators, so that compiling, exporting and autograd work.

A pattern travels through an operator as its text and its tensors (:func:`graphrec.kernels.patterns.encode`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backends import interpreting
from ..configs import AttentionConfig, attention_config, padded
from ..patterns import Pattern, TilePlan, decode, encode
from .bias import RelativeBias, flat_places


def attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, bias: Tensor | RelativeBias | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq) float32; see :func:`graphrec.kernels.attention`."""
    text, held = encode(pattern)
    table = bias.table if isinstance(bias, RelativeBias) else None
    window = ",".join(map(str, bias.window)) if isinstance(bias, RelativeBias) else ""
    dense = None
    if isinstance(bias, Tensor):
        dense = bias.expand(*bias.shape[:2], q.shape[2], k.shape[2])
    return tile_attention(q, k, v, dense, table, held, text, window, scale)


class _Launch(NamedTuple):
    """What every kernel of one call needs, in the order of their arguments."""

    plan: TilePlan
    config: AttentionConfig
    kind: int
    bias: Tensor
    bias_steps: tuple[int, int, int, int]
    q_place: Tensor
    k_place: Tensor
    penalty: float

    def settings(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
        """Constant arguments of the kernels."""
        return {
            "BIAS": self.kind,
            "SOFT": self.plan.soft is not None,
            "BM": self.config.bm,
            "BN": self.config.bn,
            "BD": padded(q.shape[3]),
            "BE": padded(v.shape[3]),
            "PRECISION": "tf32x3" if q.dtype == torch.float32 else "tf32",
            "INTERPRET": interpreting(),
            "WIDE": any(_span(one) >= 1 << 31 for one in (q, k, v, self.bias)),
            "num_warps": self.config.warps,
            "num_stages": self.config.stages,
        }


def _span(x: Tensor) -> int:
    """How far the elements of one batch entry and head lie apart in memory."""
    return sum((size - 1) * step for size, step in zip(x.shape[-2:], x.stride()[-2:], strict=True))


def _prepare(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, table: Tensor | None, pattern: Pattern, window: str
) -> _Launch:
    q_len, k_len = q.shape[2], k.shape[2]
    config = attention_config(max(q.shape[3], v.shape[3]), q.dtype, interpreting())
    plan = pattern.tiles(q_len, k_len, config.bm, config.bn, q.device)
    place = q.new_zeros(1, dtype=torch.int32)
    if table is not None:
        here, there = flat_places(pattern, tuple(map(int, window.split(","))), q_len, k_len, q.device)
        table = table.contiguous()
        steps = (0, table.shape[1] if table.shape[0] > 1 else 0, 0, table.shape[1])
        return _Launch(plan, config, 2, table, steps, here.int(), there.int(), pattern.penalty_value)
    if bias is not None:
        b, h, i, j = (step if size > 1 else 0 for step, size in zip(bias.stride(), bias.shape, strict=True))
        return _Launch(plan, config, 1, bias, (b, h, i, j), place, place, pattern.penalty_value)
    return _Launch(plan, config, 0, q, (0, 0, 0, 0), place, place, pattern.penalty_value)


def _plan_arguments(launch: _Launch, transposed: bool = False) -> tuple[Tensor, ...]:
    plan = launch.plan
    lists = (plan.t_ptr, plan.t_row, plan.t_slot) if transposed else (plan.ptr, plan.col, plan.slot)
    soft = plan.bits if plan.soft is None else plan.soft
    return (plan.q_rows, plan.k_rows, *lists, plan.bits, soft, launch.q_place, launch.k_place)


@torch.library.custom_op("graphrec::tile_attention", mutates_args=())
def tile_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    window: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Forward kernel; ``bias`` is (B or 1, H or 1, Lq, Lk), ``table`` and ``window`` as in RelativeBias."""
    from . import triton_kernels

    batch, heads, q_len, dim = q.shape
    launch = _prepare(q, k, v, bias, table, decode(pattern, tensors), window)
    out = q.new_empty(batch, heads, q_len, v.shape[3])
    lse = q.new_empty(batch, heads, q_len, dtype=torch.float32)
    tiles, plan = launch.plan.q_rows.shape[0], launch.plan
    if out.numel() == 0 and lse.numel() == 0:
        return out, lse
    triton_kernels.forward[(tiles * batch * heads,)](
        q, k, v, launch.bias, out, lse, *_plan_arguments(launch),
        *q.stride(), *k.stride(), *v.stride(), *launch.bias_steps,
        scale, launch.penalty, heads, heads // k.shape[1], q_len, tiles, plan.batch_step, plan.head_step,
        dim, v.shape[3], **launch.settings(q, k, v),
    )  # fmt: skip
    return out, lse


@tile_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    window: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("graphrec::tile_attention_backward", mutates_args=())
def tile_attention_backward(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    window: str,
    scale: float,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the bias or table (empty without ``bias_grad``).

    ``delta`` (B, H, Lq) is the sum over ``grad * out`` less the gradient of the log-sum-exp.
    """
    from . import triton_kernels

    batch, heads, q_len, dim = q.shape
    made = decode(pattern, tensors)
    launch = _prepare(q, k, v, bias, table, made, window)
    plan, grad = launch.plan, grad.contiguous()
    dq = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (k, v))
    read = (q, k, v, launch.bias, grad, lse, delta.contiguous())
    steps = (*q.stride(), *k.stride(), *v.stride(), *launch.bias_steps)
    share, settings = heads // k.shape[1], launch.settings(q, k, v)
    ends = (plan.batch_step, plan.head_step, dim, v.shape[3])
    if len(plan.q_rows):
        triton_kernels.backward_q[(len(plan.q_rows) * batch * heads,)](
            *read, dq, *_plan_arguments(launch), *steps,
            scale, launch.penalty, heads, share, q_len, len(plan.q_rows), *ends, **settings,
        )  # fmt: skip
    if len(plan.k_rows):
        triton_kernels.backward_kv[(len(plan.k_rows) * batch * k.shape[1],)](
            *read, dk, dv, *_plan_arguments(launch, transposed=True), *steps,
            scale, launch.penalty, heads, share, q_len, k.shape[2], len(plan.k_rows), *ends, **settings,
        )  # fmt: skip
    if not bias_grad:
        return dq, dk, dv, q.new_empty(0)
    tiles = _bias_tiles(launch, read, steps, (batch, heads, share, q_len), ends, scale, settings, bias)
    if table is not None:
        return dq, dk, dv, _table_gradient(launch, tiles, table)
    assert bias is not None
    return dq, dk, dv, _dense_gradient(launch, tiles, bias)


def _bias_tiles(
    launch: _Launch,
    read: tuple[Tensor, ...],
    steps: tuple[int, ...],
    sizes: tuple[int, int, int, int],
    ends: tuple[int, int, int, int],
    scale: float,
    settings: dict[str, Any],
    bias: Tensor | None,
) -> Tensor:
    """Gradient of the logits per tile, float32 (batch parts, head parts, entries, bm, bn)."""
    from . import triton_kernels

    plan, (batch, heads, share, q_len) = launch.plan, sizes
    per_batch = bias is not None and bias.shape[0] > 1 and plan.batch_step == 0
    per_head = launch.bias.shape[1 if bias is not None else 0] > 1 and plan.head_step == 0
    batch_parts = batch if per_batch else _split(batch, len(plan.col)) if plan.batch_step == 0 else 1
    head_parts = heads if per_head else 1
    entries = len(plan.col)
    tiles = torch.empty(
        batch_parts, head_parts, entries, launch.config.bm, launch.config.bn, device=plan.col.device
    )
    if tiles.numel():
        triton_kernels.backward_bias[(entries * batch_parts * head_parts,)](
            *read, tiles, plan.q_rows, plan.k_rows, plan.entry.int(), *_plan_arguments(launch)[3:], *steps,
            scale, launch.penalty, batch, heads, share, q_len, len(plan.q_rows), *ends,
            entries, batch_parts, head_parts, **settings,
        )  # fmt: skip
    if bias is not None and per_batch:
        return tiles
    return tiles.sum(0, keepdim=True)


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


def _table_gradient(launch: _Launch, tiles: Tensor, table: Tensor) -> Tensor:
    """Sum of the tiles over all pairs of equal distance, (H or 1, columns)."""
    plan = launch.plan
    rows, cols, real = _pair_rows(plan)
    column = launch.q_place.long()[rows.clamp(min=0)] - launch.k_place.long()[cols.clamp(min=0)]
    real = real & (column >= 0) & (column < table.shape[1])
    head = _groups_of(plan)[1].view(-1, 1, 1)
    rows_of_table = 1 if plan.head_step == 0 else table.shape[0]
    flat = torch.where(real, head % table.shape[0] * table.shape[1] + column, rows_of_table * table.shape[1])
    total = tiles.new_zeros(tiles.shape[1], rows_of_table * table.shape[1] + 1)
    total.index_add_(1, flat.flatten(), tiles[0].flatten(1))
    return total[:, :-1].reshape(-1, table.shape[1]).view(table.shape).to(table.dtype)


def _dense_gradient(launch: _Launch, tiles: Tensor, bias: Tensor) -> Tensor:
    """The tiles laid out as the bias, (B or 1, H or 1, Lq, Lk); each pair of a plan is in one tile."""
    plan = launch.plan
    rows, cols, real = _pair_rows(plan)
    batch, head = _groups_of(plan)
    lead = (batch if bias.shape[0] > 1 else torch.zeros_like(batch)) * bias.shape[1]
    lead = lead + (head if bias.shape[1] > 1 else 0)
    size = bias.shape[2] * bias.shape[3]
    flat = lead.view(-1, 1, 1) * size + rows * bias.shape[3] + cols
    flat = torch.where(real, flat, bias.numel()).flatten()
    total = tiles.new_zeros(bias.numel() + 1)
    for place in range(tiles.shape[0] * tiles.shape[1]):
        i, j = divmod(place, tiles.shape[1])
        step = (i * bias.shape[1] + j) * size
        total.index_add_(0, torch.where(flat == bias.numel(), flat, flat + step), tiles[i, j].flatten())
    return total[:-1].view(bias.shape).to(bias.dtype)


@tile_attention_backward.register_fake
def _(
    grad: Tensor,
    delta: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    tensors: list[Tensor],
    pattern: str,
    window: str,
    scale: float,
    bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = table if table is not None else bias
    last = (
        torch.empty(given.shape, dtype=given.dtype, device=q.device)
        if bias_grad and given is not None
        else None
    )
    made = [torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v)]
    return made[0], made[1], made[2], q.new_empty(0) if last is None else last


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, table, tensors, ctx.pattern, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, table, *output, *tensors)
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
    q, k, v, bias, table, out, lse, *tensors = ctx.saved_tensors
    delta = (grad.float() * out.float()).sum(-1) - grad_lse
    wanted = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
    dq, dk, dv, last = tile_attention_backward(
        grad.to(q.dtype),
        delta,
        lse,
        q,
        k,
        v,
        bias,
        table,
        tensors,
        ctx.pattern,
        ctx.window,
        ctx.scale,
        wanted,
    )
    dbias = last if wanted and bias is not None else None
    dtable = last if wanted and table is not None else None
    return dq, dk, dv, dbias, dtable, [None] * len(tensors), None, None, None


tile_attention.register_autograd(_backward, setup_context=_setup)
