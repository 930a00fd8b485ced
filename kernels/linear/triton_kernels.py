"""Triton kernels of causal linear attention in chunks: states, outputs and their gradients, with any decay.

``S[0]`` is the state before the first of N chunks and ``S[N]`` the one after the last. One kernel computes
all of them; run from the end with ``q`` and the gradient of the output in the places of ``k`` and ``v`` it
computes the gradients ``dS`` of the states. Given both, chunks are independent:

``out = (q e^F) S[n] + A v``, with ``A[t, s] = sum_d q[t, d] k[s, d] e^(G[t, d] - G[s, d])`` for s <= t,
``dq = e^F (dout S[n]^T) + pairs(dA, k)``, ``dk = e^R (v dS[n + 1]^T) + pairs(dA^T, q)``, ``dA = dout v^T``,
``dv = (k e^R) dS[n + 1] + A^T dout`` (in :mod:`.triton_backward`).

F and R sum log decays since a chunk's start and until its end.

DECAY is 0 for none, 1 for one per head, 2 for one per dimension. With 2, the pairs of a chunk are computed by
doubling as in :func:`graphrec.kernels.linear.torch.pair_weights`: at each level the pairs whose positions
part there, by a product of C x C of which the other pairs are masked out.

Names: ``t`` and ``s`` run over the C positions of a chunk, BK and BV are tiles of the two dimensions.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from ..attention.triton_kernels import dot


@triton.jit
def load_tile(base, start, step, first, d_step, length, width, C: tl.constexpr, BD: tl.constexpr):
    """Rows ``start``, ... of a matrix and columns ``first``, ..., (C, BD); zero beyond either end."""
    t, d = tl.arange(0, C), first + tl.arange(0, BD)
    places = base + tl.cast(start, tl.int64) * step + t[:, None] * step + d[None, :] * d_step
    return tl.load(places, mask=(start + t < length)[:, None] & (d < width)[None, :], other=0.0)


@triton.jit
def store_tile(base, start, first, length, width, value, C: tl.constexpr, BD: tl.constexpr):
    """Write a tile of :func:`load_tile` to a contiguous matrix."""
    t, d = tl.arange(0, C), first + tl.arange(0, BD)
    places = base + tl.cast(start, tl.int64) * width + t[:, None] * width + d[None, :]
    mask = (start + t < length)[:, None] & (d < width)[None, :]
    tl.store(places, value.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_state(base, first, last, dim, v_dim, BK: tl.constexpr, BV: tl.constexpr):
    """A tile of a contiguous state, (BK, BV)."""
    d, e = first + tl.arange(0, BK), last + tl.arange(0, BV)
    mask = (d < dim)[:, None] & (e < v_dim)[None, :]
    return tl.load(base + d[:, None] * v_dim + e[None, :], mask=mask, other=0.0)


@triton.jit
def load_decays(base, start, step, first, d_step, length, width, shift, C: tl.constexpr, BD: tl.constexpr,
                DECAY: tl.constexpr):  # fmt: skip
    """Log decays of a chunk as float32, each row that of ``shift`` positions later within the chunk, else 0.

    (C, BD) with one per dimension, else (C,).
    """
    t = tl.arange(0, C)
    here = tl.cast(start, tl.int64) * step
    inside = (t + shift < C) & (start + t + shift < length)
    if DECAY == 2:
        d = first + tl.arange(0, BD)
        places = base + here + (t + shift)[:, None] * step + d[None, :] * d_step
        mask = inside[:, None] & (d < width)[None, :]
    else:
        places = base + here + (t + shift) * step
        mask = inside
    return tl.load(places, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def since_start(base, start, step, first, d_step, length, width, C: tl.constexpr, BD: tl.constexpr,
                DECAY: tl.constexpr):  # fmt: skip
    """``exp`` of F, the sum of log decays up to and with each position."""
    g = load_decays(base, start, step, first, d_step, length, width, 0, C, BD, DECAY)
    sums = tl.exp(tl.cumsum(g, 0))
    return sums if DECAY == 2 else sums[:, None]


@triton.jit
def until_end(base, start, step, first, d_step, length, width, C: tl.constexpr, BD: tl.constexpr,
              DECAY: tl.constexpr):  # fmt: skip
    """``exp`` of R, the sum of log decays after each position."""
    g = load_decays(base, start, step, first, d_step, length, width, 1, C, BD, DECAY)
    sums = tl.exp(tl.cumsum(g, 0, reverse=True))
    return sums if DECAY == 2 else sums[:, None]


@triton.jit
def between(base, start, step, length, C: tl.constexpr):
    """``exp`` of the sums of log decays over s < r <= t, (C, C), 0 for s > t; one decay per head."""
    t, s = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    g = load_decays(base, start, step, 0, 0, length, 1, 0, C, 1, 1)
    sums = tl.cumsum(tl.where(t > s, g[:, None], 0.0), 0)
    return tl.where(t >= s, tl.exp(sums), 0.0)


@triton.jit
def level(g, later, H: tl.constexpr, C: tl.constexpr, BD: tl.constexpr):
    """Decays to a border between two blocks of H positions: of queries since it, and of keys until it."""
    if H == 1:
        since, until = g, tl.zeros((C, BD), tl.float32)
    else:
        t = tl.arange(0, C)
        later = tl.where(((t + 1) % H != 0)[:, None], later, 0.0)
        since = tl.reshape(tl.cumsum(tl.reshape(g, (C // H, H, BD)), 1), (C, BD))
        until = tl.reshape(tl.cumsum(tl.reshape(later, (C // H, H, BD)), 1, reverse=True), (C, BD))
    return tl.exp(since), tl.exp(until)


@triton.jit
def meet(H: tl.constexpr, C: tl.constexpr):
    """Which pairs part at the border between s's block of H positions and t's, the next one, (C, C)."""
    t, s = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    return (t // H == s // H + 1) & ((t // H) % 2 == 1)


@triton.jit
def pairs(q, k, g, later, DECAY: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BD: tl.constexpr,
          PRECISION: tl.constexpr, INTERPRET: tl.constexpr):  # fmt: skip
    """What a tile of dimensions adds to A; with DECAY below 2 still without decay and for all pairs."""
    if DECAY < 2:
        out = dot(q, tl.trans(k), PRECISION, INTERPRET)
    else:
        t, s = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
        wide_q, wide_k = q.to(tl.float32), k.to(tl.float32)
        out = tl.where(t == s, tl.sum(wide_q * wide_k, 1)[:, None], 0.0)
        for power in tl.static_range(0, LEVELS):
            since, until = level(g, later, 1 << power, C, BD)
            queries, keys = (wide_q * since).to(q.dtype), (wide_k * until).to(q.dtype)
            part = dot(queries, tl.trans(keys), PRECISION, INTERPRET)
            out += tl.where(meet(1 << power, C), part, 0.0)
    return out


@triton.jit
def weights(
    q_base, k_base, g_base, start, q_t, q_d, k_t, k_d, g_t, g_d, length, dim,
    DECAY: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """A of one chunk, (C, C) float32."""
    t, s = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    out = tl.zeros((C, C), tl.float32)
    for d in range(0, dim, BK):
        q = load_tile(q_base, start, q_t, d, q_d, length, dim, C, BK)
        k = load_tile(k_base, start, k_t, d, k_d, length, dim, C, BK)
        g = load_decays(g_base, start, g_t, d, g_d, length, dim, 0, C, BK, DECAY) if DECAY == 2 else 0.0
        later = load_decays(g_base, start, g_t, d, g_d, length, dim, 1, C, BK, DECAY) if DECAY == 2 else 0.0
        out += pairs(q, k, g, later, DECAY, LEVELS, C, BK, PRECISION, INTERPRET)
    if DECAY == 1:
        out *= between(g_base, start, g_t, length, C)
    if DECAY == 0:
        out = tl.where(t >= s, out, 0.0)
    return out


@triton.jit
def states(
    k_ptr, v_ptr, g_ptr, first_ptr, out_ptr,
    k_b, k_h, k_t, k_d, v_b, v_h, v_t, v_d, g_b, g_h, g_t, g_d,
    heads, share, length, chunks, k_tiles, v_tiles, dim, v_dim,
    DECAY: tl.constexpr, BACK: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """A tile of all states of a head, (chunks + 1, K, V), from the first on, or with BACK from the last."""
    e = tl.program_id(0) % v_tiles * BV
    d = tl.program_id(0) // v_tiles % k_tiles * BK
    both = (tl.program_id(0) // (v_tiles * k_tiles)).to(tl.int64)
    b, h = both // heads, both % heads
    k_base, v_base = k_ptr + b * k_b + (h // share) * k_h, v_ptr + b * v_b + h * v_h
    g_base = g_ptr + b * g_b + h * g_h
    rows, columns = d + tl.arange(0, BK), e + tl.arange(0, BV)
    places = out_ptr + both * (chunks + 1) * dim * v_dim + rows[:, None] * v_dim + columns[None, :]
    mask = (rows < dim)[:, None] & (columns < v_dim)[None, :]
    state = load_state(first_ptr + both * dim * v_dim, d, e, dim, v_dim, BK, BV)
    for step in range(0, chunks):
        at = chunks - step if BACK else step
        tl.store(places + tl.cast(at, tl.int64) * dim * v_dim, state, mask=mask)
        start = (at - 1 if BACK else at) * C
        k = load_tile(k_base, start, k_t, d, k_d, length, dim, C, BK)
        v = load_tile(v_base, start, v_t, e, v_d, length, v_dim, C, BV)
        if DECAY > 0:
            if BACK:
                shrink = since_start(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
            else:
                shrink = until_end(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
            total = tl.sum(load_decays(g_base, start, g_t, d, g_d, length, dim, 0, C, BK, DECAY), 0)
            k = (k.to(tl.float32) * shrink).to(k.dtype)
            state = state * (tl.exp(total)[:, None] if DECAY == 2 else tl.exp(total))
        state += dot(tl.trans(k), v, PRECISION, INTERPRET)
    tl.store(places + (0 if BACK else tl.cast(chunks, tl.int64)) * dim * v_dim, state, mask=mask)


@triton.jit
def output(
    q_ptr, k_ptr, v_ptr, g_ptr, states_ptr, out_ptr,
    q_b, q_h, q_t, q_d, k_b, k_h, k_t, k_d, v_b, v_h, v_t, v_d, g_b, g_h, g_t, g_d,
    heads, share, length, chunks, tiles, dim, v_dim,
    DECAY: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Output of one chunk and one tile of value dimensions."""
    e = tl.program_id(0) % tiles * BV
    chunk = tl.program_id(0) // tiles % chunks
    both = (tl.program_id(0) // (tiles * chunks)).to(tl.int64)
    b, h, start = both // heads, both % heads, chunk * C
    q_base, k_base = q_ptr + b * q_b + (h // share) * q_h, k_ptr + b * k_b + (h // share) * k_h
    g_base = g_ptr + b * g_b + h * g_h
    state = states_ptr + (both * (chunks + 1) + chunk) * dim * v_dim
    acc = tl.zeros((C, BV), tl.float32)
    for d in range(0, dim, BK):
        q = load_tile(q_base, start, q_t, d, q_d, length, dim, C, BK)
        if DECAY > 0:
            shrink = since_start(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
            q = (q.to(tl.float32) * shrink).to(q.dtype)
        acc += dot(q, load_state(state, d, e, dim, v_dim, BK, BV).to(q.dtype), PRECISION, INTERPRET)
    pair = weights(
        q_base, k_base, g_base, start, q_t, q_d, k_t, k_d, g_t, g_d, length, dim,
        DECAY, LEVELS, C, BK, PRECISION, INTERPRET,
    )  # fmt: skip
    v = load_tile(v_ptr + b * v_b + h * v_h, start, v_t, e, v_d, length, v_dim, C, BV)
    acc += dot(pair.to(v.dtype), v, PRECISION, INTERPRET)
    store_tile(out_ptr + both * length * v_dim, start, e, length, v_dim, acc, C, BV)
