"""Triton kernels of dynamic convolution: a program owns some channels at some positions, or some filters.

Which positions a tap meets, and the reverse, is read from the tables of :mod:`.dynamic_places`; there are no
atomic additions. Tensors are read through their strides, so layouts need no copy.

Names: ``m`` runs over channels of a group, ``p`` over positions, ``b`` and ``g`` are batch entry and group.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(base, m, m_step, place, seen, members):
    """Channels by positions in float32, zero where nothing is seen."""
    mask = seen[None, :] & (m < members)[:, None]
    return tl.load(base + m.to(tl.int64)[:, None] * m_step + place[None, :], mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit
def entry(table, line, width, column, real):
    """One entry of a table per position, -1 where there is no position."""
    return tl.load(table + line * width + column, mask=real, other=-1)


@triton.jit
def forward(
    x_ptr, w_ptr, out_ptr, rows, columns, x_b, x_g, x_m, x_i, x_j, w_b, w_g, w_t, w_i, w_j,
    o_b, o_g, o_m, o_i, o_j, groups, members, count, width, kh, kw, m_tiles, p_tiles,
    BM: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Output of some channels of one group at some positions."""
    pid = tl.program_id(0)
    p = (pid % p_tiles) * BP + tl.arange(0, BP)
    m = ((pid // p_tiles) % m_tiles) * BM + tl.arange(0, BM)
    both = (pid // (p_tiles * m_tiles)).to(tl.int64)
    b, g = both // groups, both % groups
    real = p < count
    i, j = p // width, p % width
    w_place = w_ptr + b * w_b + g * w_g + i.to(tl.int64) * w_i + j.to(tl.int64) * w_j
    acc = tl.zeros((BM, BP), tl.float32)
    for ti in range(0, kh):
        row = entry(rows, i, kh, ti, real)
        for tj in range(0, kw):
            column = entry(columns, j, kw, tj, real)
            seen = (row >= 0) & (column >= 0)
            place = row.to(tl.int64) * x_i + column.to(tl.int64) * x_j
            x = load_tile(x_ptr + b * x_b + g * x_g, m, x_m, place, seen, members)
            tap = tl.cast(ti * kw + tj, tl.int64)
            acc += x * tl.load(w_place + tap * w_t, mask=seen, other=0.0).to(tl.float32)[None, :]
    place = i.to(tl.int64) * o_i + j.to(tl.int64) * o_j
    places = out_ptr + b * o_b + g * o_g + m.to(tl.int64)[:, None] * o_m + place[None, :]
    tl.store(places, acc.to(out_ptr.dtype.element_ty), mask=real[None, :] & (m < members)[:, None])


@triton.jit
def backward_input(
    grad_ptr, w_ptr, dx_ptr, row_out, row_tap, column_out, column_tap,
    o_b, o_g, o_m, o_i, o_j, w_b, w_g, w_t, w_i, w_j, x_b, x_g, x_m, x_i, x_j,
    groups, members, count, width, row_most, column_most, kw, m_tiles, p_tiles,
    BM: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Gradient of some channels of one group at some input positions, over the outputs that met them."""
    pid = tl.program_id(0)
    p = (pid % p_tiles) * BP + tl.arange(0, BP)
    m = ((pid // p_tiles) % m_tiles) * BM + tl.arange(0, BM)
    both = (pid // (p_tiles * m_tiles)).to(tl.int64)
    b, g = both // groups, both % groups
    real = p < count
    r, c = p // width, p % width
    acc = tl.zeros((BM, BP), tl.float32)
    for first in range(0, row_most):
        i = entry(row_out, r, row_most, first, real).to(tl.int64)
        ti = entry(row_tap, r, row_most, first, real)
        for second in range(0, column_most):
            j = entry(column_out, c, column_most, second, real).to(tl.int64)
            tj = entry(column_tap, c, column_most, second, real)
            seen = (i >= 0) & (j >= 0)
            grad = load_tile(grad_ptr + b * o_b + g * o_g, m, o_m, i * o_i + j * o_j, seen, members)
            place = (ti * kw + tj).to(tl.int64) * w_t + i * w_i + j * w_j
            w = tl.load(w_ptr + b * w_b + g * w_g + place, mask=seen, other=0.0).to(tl.float32)
            acc += grad * w[None, :]
    place = r.to(tl.int64) * x_i + c.to(tl.int64) * x_j
    places = dx_ptr + b * x_b + g * x_g + m.to(tl.int64)[:, None] * x_m + place[None, :]
    tl.store(places, acc.to(dx_ptr.dtype.element_ty), mask=real[None, :] & (m < members)[:, None])


@triton.jit
def backward_weight(
    grad_ptr, x_ptr, dw_ptr, rows, columns, o_b, o_g, o_m, o_i, o_j, x_b, x_g, x_m, x_i, x_j,
    groups, members, count, width, kh, kw, p_tiles,
    BM: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Gradient of one row of taps of one group at some positions; ``dw`` is contiguous."""
    pid = tl.program_id(0)
    p = (pid % p_tiles) * BP + tl.arange(0, BP)
    ti = (pid // p_tiles) % kh
    both = (pid // (p_tiles * kh)).to(tl.int64)
    b, g = both // groups, both % groups
    real = p < count
    i, j = p // width, p % width
    row = entry(rows, i, kh, ti, real)
    grad_place = i.to(tl.int64) * o_i + j.to(tl.int64) * o_j
    for tj in range(0, kw):
        column = entry(columns, j, kw, tj, real)
        seen = (row >= 0) & (column >= 0)
        place = row.to(tl.int64) * x_i + column.to(tl.int64) * x_j
        acc = tl.zeros((BP,), tl.float32)
        for first in range(0, members, BM):
            m = first + tl.arange(0, BM)
            x = load_tile(x_ptr + b * x_b + g * x_g, m, x_m, place, seen, members)
            acc += tl.sum(x * load_tile(grad_ptr + b * o_b + g * o_g, m, o_m, grad_place, seen, members), 0)
        tap = (both * kh + ti) * kw + tj
        tl.store(dw_ptr + tap * count + p, acc.to(dw_ptr.dtype.element_ty), mask=real)
