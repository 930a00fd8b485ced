"""Triton kernels of linear attention's gradients; formulas and names as in :mod:`.triton_kernels`.

The gradient of a log decay at r sums over the pairs s < r <= t that it stands between, each kind apart, so
that large sums do not cancel: with the query in the chunk and the key before it (sums of ``q dq`` over
t >= r), with the key in the chunk and the query after it (``k dk`` over s < r), with neither (``e^total``
times the product of ``S[n]`` and ``dS[n + 1]``), and both in the chunk. The last are summed over pairs; with
a decay per dimension they are the sums over t >= r of ``q dq - k dk``.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from ..attention.triton_kernels import dot
from .triton_kernels import (
    between,
    level,
    load_decays,
    load_state,
    load_tile,
    meet,
    since_start,
    store_tile,
    until_end,
    weights,
)


@triton.jit
def stretches(query, key):
    """Sums along a chunk over t >= r of what queries bring and over s < r of what keys bring."""
    return tl.cumsum(query, 0, reverse=True) + tl.cumsum(key, 0) - key


@triton.jit
def backward_v(
    q_ptr, k_ptr, grad_ptr, g_ptr, dstates_ptr, dv_ptr,
    q_b, q_h, q_t, q_d, k_b, k_h, k_t, k_d, g_b, g_h, g_t, g_d,
    heads, share, length, chunks, tiles, dim, v_dim,
    DECAY: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Gradient of v in one chunk and one tile of value dimensions; ``grad`` is contiguous."""
    e = tl.program_id(0) % tiles * BV
    chunk = tl.program_id(0) // tiles % chunks
    both = (tl.program_id(0) // (tiles * chunks)).to(tl.int64)
    b, h, start = both // heads, both % heads, chunk * C
    q_base, k_base = q_ptr + b * q_b + (h // share) * q_h, k_ptr + b * k_b + (h // share) * k_h
    g_base = g_ptr + b * g_b + h * g_h
    dstate = dstates_ptr + (both * (chunks + 1) + chunk + 1) * dim * v_dim
    acc = tl.zeros((C, BV), tl.float32)
    for d in range(0, dim, BK):
        k = load_tile(k_base, start, k_t, d, k_d, length, dim, C, BK)
        if DECAY > 0:
            shrink = until_end(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
            k = (k.to(tl.float32) * shrink).to(k.dtype)
        acc += dot(k, load_state(dstate, d, e, dim, v_dim, BK, BV).to(k.dtype), PRECISION, INTERPRET)
    pair = weights(
        q_base, k_base, g_base, start, q_t, q_d, k_t, k_d, g_t, g_d, length, dim,
        DECAY, LEVELS, C, BK, PRECISION, INTERPRET,
    )  # fmt: skip
    grad = load_tile(grad_ptr + both * length * v_dim, start, v_dim, e, 1, length, v_dim, C, BV)
    acc += dot(tl.trans(pair.to(grad.dtype)), grad, PRECISION, INTERPRET)
    store_tile(dv_ptr + both * length * v_dim, start, e, length, v_dim, acc, C, BV)


@triton.jit
def backward_qk(
    q_ptr, k_ptr, v_ptr, g_ptr, grad_ptr, states_ptr, dstates_ptr, dq_ptr, dk_ptr, dg_ptr,
    q_b, q_h, q_t, q_d, k_b, k_h, k_t, k_d, v_b, v_h, v_t, v_d, g_b, g_h, g_t, g_d,
    heads, share, length, chunks, tiles, dim, v_dim,
    DECAY: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Gradients of q, k and log decays in one chunk and one tile of key dimensions, per head of v.

    ``dg`` is (B, H, T, K) with one decay per dimension, else (B, H, T, tiles), to be summed over tiles.
    """
    i = tl.program_id(0) % tiles
    d = i * BK
    chunk = tl.program_id(0) // tiles % chunks
    both = (tl.program_id(0) // (tiles * chunks)).to(tl.int64)
    b, h, start = both // heads, both % heads, chunk * C
    v_base, grad_base = v_ptr + b * v_b + h * v_h, grad_ptr + both * length * v_dim
    g_base = g_ptr + b * g_b + h * g_h
    state = states_ptr + (both * (chunks + 1) + chunk) * dim * v_dim
    dstate = dstates_ptr + (both * (chunks + 1) + chunk + 1) * dim * v_dim
    dpair = tl.zeros((C, C), tl.float32)
    dq, dk = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    carried = tl.zeros((BK,), tl.float32)
    for e in range(0, v_dim, BV):
        grad = load_tile(grad_base, start, v_dim, e, 1, length, v_dim, C, BV)
        v = load_tile(v_base, start, v_t, e, v_d, length, v_dim, C, BV)
        before = load_state(state, d, e, dim, v_dim, BK, BV)
        dafter = load_state(dstate, d, e, dim, v_dim, BK, BV)
        dpair += dot(grad, tl.trans(v), PRECISION, INTERPRET)
        dq += dot(grad, tl.trans(before.to(v.dtype)), PRECISION, INTERPRET)
        dk += dot(v, tl.trans(dafter.to(v.dtype)), PRECISION, INTERPRET)
        if DECAY > 0:
            carried += tl.sum(before * dafter, 1)
    q = load_tile(q_ptr + b * q_b + (h // share) * q_h, start, q_t, d, q_d, length, dim, C, BK)
    k = load_tile(k_ptr + b * k_b + (h // share) * k_h, start, k_t, d, k_d, length, dim, C, BK)
    if DECAY > 0:
        dq *= since_start(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
        dk *= until_end(g_base, start, g_t, d, g_d, length, dim, C, BK, DECAY)
        total = tl.sum(load_decays(g_base, start, g_t, d, g_d, length, dim, 0, C, BK, DECAY), 0)
        change = stretches(q.to(tl.float32) * dq, k.to(tl.float32) * dk) + (tl.exp(total) * carried)[None, :]
    t, s = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    own = tl.sum(tl.where(t == s, dpair, 0.0), 1)[:, None]
    if DECAY == 2:
        g = load_decays(g_base, start, g_t, d, g_d, length, dim, 0, C, BK, DECAY)
        later = load_decays(g_base, start, g_t, d, g_d, length, dim, 1, C, BK, DECAY)
        inner_q, inner_k = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
        for power in tl.static_range(0, LEVELS):
            since, until = level(g, later, 1 << power, C, BK)
            part = tl.where(meet(1 << power, C), dpair, 0.0).to(q.dtype)
            keys, queries = (k.to(tl.float32) * until).to(q.dtype), (q.to(tl.float32) * since).to(q.dtype)
            inner_q += dot(part, keys, PRECISION, INTERPRET) * since
            inner_k += dot(tl.trans(part), queries, PRECISION, INTERPRET) * until
        change += tl.cumsum(q.to(tl.float32) * inner_q - k.to(tl.float32) * inner_k, 0, reverse=True)
        dq += inner_q
        dk += inner_k
        store_tile(dg_ptr + both * length * dim, start, d, length, dim, change, C, BK)
    else:
        dpair = tl.where(t > s, dpair, 0.0)
        if DECAY == 1:
            dpair *= between(g_base, start, g_t, length, C)
            pair = dot(q, tl.trans(k), PRECISION, INTERPRET) * dpair
            inner = tl.sum(tl.where(t >= s, tl.cumsum(pair, 1) - pair, 0.0), 0)
            place = start + tl.arange(0, C)
            places = dg_ptr + (both * length + place) * tiles + i
            tl.store(places, tl.sum(change, 1) + inner, mask=place < length)
        dq += dot(dpair.to(q.dtype), k, PRECISION, INTERPRET)
        dk += dot(tl.trans(dpair.to(q.dtype)), q, PRECISION, INTERPRET)
    dq += own * k.to(tl.float32)
    dk += own * q.to(tl.float32)
    store_tile(dq_ptr + both * length * dim, start, d, length, dim, dq, C, BK)
    store_tile(dk_ptr + both * length * dim, start, d, length, dim, dk, C, BK)
