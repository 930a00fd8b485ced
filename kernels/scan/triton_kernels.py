"""Triton kernels of the linear recurrence ``h[t] = a[t] * h[t - 1] + b[t]`` on (B, T, D).

A sequence is cut into *splits*, one program for each split and block of channels. A program walks over the
tiles of its split and scans each tile at once, from the state that the tile before left. Where there is more
than one split, ``ends`` computes first what each of them does to a state, and a scan over splits gives the
state in front of each.

Everything is told in *working order*: ``s`` counts from where the recurrence starts, and BACK says that this
is the last position. The gradient is the same recurrence in the opposite order, with ``a`` shifted by one:
``db[t] = g[t] + a[t + 1] * db[t + 1]`` and ``da[t] = db[t] * h[t - 1]``.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def chain(a, b, c, d):
    """The step ``x -> a x + b``, then ``x -> c x + d``."""
    return a * c, c * b + d


@triton.jit
def load_steps(base, s, columns, length, width, step, column_step, fill, BACK: tl.constexpr):
    """(steps, columns) in float32 at places ``s`` of working order; ``fill`` outside."""
    t = s
    if BACK:
        t = length - 1 - s
    places = base + (t.to(tl.int64) * step)[:, None] + (columns.to(tl.int64) * column_step)[None, :]
    inside = ((s >= 0) & (s < length))[:, None] & (columns < width)[None, :]
    return tl.load(places, mask=inside, other=fill).to(tl.float32)


@triton.jit
def store_steps(base, s, columns, length, width, value, BACK: tl.constexpr):
    """Write (steps, columns) of a contiguous (T, D) at places ``s`` of working order."""
    t = s
    if BACK:
        t = length - 1 - s
    places = base + (t.to(tl.int64) * width)[:, None] + columns[None, :]
    inside = (s < length)[:, None] & (columns < width)[None, :]
    tl.store(places, value.to(base.dtype.element_ty), mask=inside)


@triton.jit
def last_row(x, ROWS: tl.constexpr):
    """The last row of a tile."""
    return tl.sum(tl.where((tl.arange(0, ROWS) == ROWS - 1)[:, None], x, 0.0), 0)


@triton.jit
def ends(
    a_ptr, b_ptr, decay_ptr, end_ptr, a_b, a_t, a_d, b_b, b_t, b_d, length, width, blocks, splits, tiles,
    SHIFT: tl.constexpr, BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a split does to the state in front of it: ``h -> decay * h + end``, both (B, splits, D)."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    split, batch = program // blocks % splits, (program // blocks // splits).to(tl.int64)
    a_base, b_base = a_ptr + batch * a_b, b_ptr + batch * b_b
    decay, end = tl.full((BD,), 1.0, tl.float32), tl.zeros((BD,), tl.float32)
    for tile in range(split * tiles, (split + 1) * tiles):
        s = tile * BT + tl.arange(0, BT)
        a = load_steps(
            a_base, tl.where(s < length, s - SHIFT, -1), columns, length, width, a_t, a_d, 1.0, BACK
        )
        b = load_steps(b_base, s, columns, length, width, b_t, b_d, 0.0, BACK)
        factor, h = tl.associative_scan((a, b), 0, chain)
        last = last_row(factor, BT)
        end = last_row(h, BT) + last * end
        decay *= last
    place = (batch * splits + split) * width + columns
    tl.store(decay_ptr + place, decay, mask=columns < width)
    tl.store(end_ptr + place, end, mask=columns < width)


@triton.jit
def forward(
    a_ptr, b_ptr, first_ptr, out_ptr, a_b, a_t, a_d, b_b, b_t, b_d, length, width, blocks, splits, tiles,
    BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """All states of a split, from the state in front of it, ``first`` (B, splits, D)."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    split, batch = program // blocks % splits, (program // blocks // splits).to(tl.int64)
    place = (batch * splits + split) * width + columns
    h = tl.load(first_ptr + place, mask=columns < width, other=0.0).to(tl.float32)
    a_base, b_base = a_ptr + batch * a_b, b_ptr + batch * b_b
    out_base = out_ptr + batch * length * width
    for tile in range(split * tiles, (split + 1) * tiles):
        s = tile * BT + tl.arange(0, BT)
        a = load_steps(a_base, s, columns, length, width, a_t, a_d, 1.0, BACK)
        b = load_steps(b_base, s, columns, length, width, b_t, b_d, 0.0, BACK)
        factor, inner = tl.associative_scan((a, b), 0, chain)
        states = inner + factor * h[None, :]
        store_steps(out_base, s, columns, length, width, states, BACK)
        h = last_row(states, BT)


@triton.jit
def backward(
    a_ptr, grad_ptr, out_ptr, first_ptr, later_ptr, da_ptr, db_ptr, a_b, a_t, a_d, grad_b, grad_t, grad_d,
    length, width, blocks, splits, tiles,
    BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of a and b. Working order is that of the gradient, so ``first`` (B, D) stands behind its end.

    ``later`` (B, splits, D) is ``db`` at the position that the split follows.
    """
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    split, batch = program // blocks % splits, (program // blocks // splits).to(tl.int64)
    inside = columns < width
    carry = tl.load(later_ptr + (batch * splits + split) * width + columns, mask=inside, other=0.0)
    first = tl.load(first_ptr + batch * width + columns, mask=inside, other=0.0).to(tl.float32)
    a_base, grad_base = a_ptr + batch * a_b, grad_ptr + batch * grad_b
    row = batch * length * width
    for tile in range(split * tiles, (split + 1) * tiles):
        s = tile * BT + tl.arange(0, BT)
        a = load_steps(a_base, tl.where(s < length, s - 1, -1), columns, length, width, a_t, a_d, 1.0, BACK)
        g = load_steps(grad_base, s, columns, length, width, grad_t, grad_d, 0.0, BACK)
        factor, inner = tl.associative_scan((a, g), 0, chain)
        db = inner + factor * carry[None, :]
        before = load_steps(out_ptr + row, s + 1, columns, length, width, width, 1, 0.0, BACK)
        before = tl.where((s == length - 1)[:, None], first[None, :], before)
        store_steps(db_ptr + row, s, columns, length, width, db, BACK)
        store_steps(da_ptr + row, s, columns, length, width, db * before, BACK)
        carry = last_row(db, BT)
