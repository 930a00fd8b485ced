"""Triton kernels for many small groups that see only themselves: windows, grids of a few dozen positions.

A group's logits fit one tile, so the softmax needs no running maximum, and one program computes all gradients
of a group from one tile of probabilities: five products where separate kernels for queries and keys need
seven. A program works through several groups of one kind, whose mask and bias it reads once, and sums their
logits' gradients into one tile for the table.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import dot, load_lse, load_pairs, load_rows, read_bits, store_rows


@triton.jit
def added_logits(
    rows, cols, slot, bits, soft, penalty, table, columns, q_place, k_place,
    BIAS: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """What a kind of group adds to its products: the table's numbers, the penalty, -inf for hidden pairs."""
    added = tl.zeros((SIZE, SIZE), tl.float32)
    if BIAS:
        added += load_pairs(table, rows, cols, 0, columns, q_place, k_place, 2, WIDE)
    if slot >= 0:
        if SOFT:
            added += read_bits(soft, slot, SIZE, SIZE).to(tl.float32) * penalty
        added = tl.where(read_bits(bits, slot, SIZE, SIZE) != 0, added, float("-inf"))
    return added


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, table_ptr, out_ptr, lse_ptr,
    q_rows, k_rows, q_tile, k_tile, work, bits, soft, q_place, k_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, table_h, columns,
    scale, penalty, batch, heads, q_len, programs, most, dim, v_dim,
    BIAS: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of up to ``most`` groups of one kind and head.

    ``work`` (programs, 4) holds where the kind's groups begin in ``q_tile`` and ``k_tile``, how many there
    are, the first to do of those times the batch, and the kind's slot.
    """
    mine = work + tl.program_id(0) % programs * 4
    h = (tl.program_id(0) // programs).to(tl.int64)
    start, count, first, slot = tl.load(mine), tl.load(mine + 1), tl.load(mine + 2), tl.load(mine + 3)
    place = tl.arange(0, SIZE)
    rows = tl.load(q_rows + tl.load(q_tile + start) * SIZE + place)
    cols = tl.load(k_rows + tl.load(k_tile + start) * SIZE + place)
    added = added_logits(
        rows, cols, slot, bits, soft, penalty, table_ptr + h * table_h, columns, q_place, k_place,
        BIAS, SOFT, SIZE, WIDE,
    )  # fmt: skip
    for job in range(first, tl.minimum(first + most, batch * count)):
        b = tl.cast(job // count, tl.int64)
        group = start + job % count
        rows = tl.load(q_rows + tl.load(q_tile + group) * SIZE + place)
        cols = tl.load(k_rows + tl.load(k_tile + group) * SIZE + place)
        q = load_rows(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, q_d, WIDE)
        k = load_rows(k_ptr + b * k_b + h * k_h, cols, k_n, BD, dim, k_d, WIDE)
        v = load_rows(v_ptr + b * v_b + h * v_h, cols, v_n, BE, v_dim, v_d, WIDE)
        s = dot(q, tl.trans(k), PRECISION, INTERPRET) * scale + added
        high = tl.max(s, 1)
        p = tl.exp(s - tl.where(high == float("-inf"), 0.0, high)[:, None])
        total = tl.sum(p, 1)
        none = total == 0.0
        safe = tl.where(none, 1.0, total)
        out = dot(p.to(v.dtype), v, PRECISION, INTERPRET) / safe[:, None]
        row = (b * heads + h) * q_len
        store_rows(out_ptr + row * v_dim, rows, v_dim, BE, v_dim, out)
        lse = tl.where(none, float("-inf"), high + tl.log(safe))
        tl.store(lse_ptr + row + rows, lse, mask=rows >= 0)


@triton.jit
def backward(
    q_ptr, k_ptr, v_ptr, table_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr, dk_ptr, dv_ptr, tiles_ptr,
    q_rows, k_rows, q_tile, k_tile, work, bits, soft, q_place, k_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, table_h, columns,
    scale, penalty, batch, heads, q_len, k_len, programs, most, dim, v_dim, SUM: tl.constexpr,
    BIAS: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All gradients of up to ``most`` groups; with SUM their logits' gradients add up in a tile, float32
    (heads, programs, SIZE, SIZE).
    """
    mine = work + tl.program_id(0) % programs * 4
    h = (tl.program_id(0) // programs).to(tl.int64)
    start, count, first, slot = tl.load(mine), tl.load(mine + 1), tl.load(mine + 2), tl.load(mine + 3)
    place = tl.arange(0, SIZE)
    rows = tl.load(q_rows + tl.load(q_tile + start) * SIZE + place)
    cols = tl.load(k_rows + tl.load(k_tile + start) * SIZE + place)
    added = added_logits(
        rows, cols, slot, bits, soft, penalty, table_ptr + h * table_h, columns, q_place, k_place,
        BIAS, SOFT, SIZE, WIDE,
    )  # fmt: skip
    acc = tl.zeros((SIZE, SIZE), tl.float32)
    for job in range(first, tl.minimum(first + most, batch * count)):
        b = tl.cast(job // count, tl.int64)
        group = start + job % count
        rows = tl.load(q_rows + tl.load(q_tile + group) * SIZE + place)
        cols = tl.load(k_rows + tl.load(k_tile + group) * SIZE + place)
        row, key = (b * heads + h) * q_len, (b * heads + h) * k_len
        q = load_rows(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, q_d, WIDE)
        k = load_rows(k_ptr + b * k_b + h * k_h, cols, k_n, BD, dim, k_d, WIDE)
        s = dot(q, tl.trans(k), PRECISION, INTERPRET) * scale + added
        p = tl.exp(s - load_lse(lse_ptr + row, rows)[:, None])
        grad = load_rows(grad_ptr + row * v_dim, rows, v_dim, BE, v_dim, 1, WIDE)
        dv = dot(tl.trans(p.to(grad.dtype)), grad, PRECISION, INTERPRET)
        store_rows(dv_ptr + key * v_dim, cols, v_dim, BE, v_dim, dv)
        v = load_rows(v_ptr + b * v_b + h * v_h, cols, v_n, BE, v_dim, v_d, WIDE)
        delta = tl.load(delta_ptr + row + rows, mask=rows >= 0, other=0.0)
        ds = p * (dot(grad, tl.trans(v), PRECISION, INTERPRET) - delta[:, None])
        if SUM:
            acc += ds
        dq = dot(ds.to(k.dtype), k, PRECISION, INTERPRET)
        store_rows(dq_ptr + row * dim, rows, dim, BD, dim, dq * scale)
        dk = dot(tl.trans(ds.to(q.dtype)), q, PRECISION, INTERPRET)
        store_rows(dk_ptr + key * dim, cols, dim, BD, dim, dk * scale)
    if SUM:
        at = tiles_ptr + tl.program_id(0).to(tl.int64) * (SIZE * SIZE)
        tl.store(at + place[:, None] * SIZE + place[None, :], acc)
