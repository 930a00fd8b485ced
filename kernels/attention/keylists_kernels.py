"""Triton kernels of attention to listed keys: forward, and a backward that adds up per key, not per use.

The gradient of a key sums over the lists that name it; an inverted index tells each program of a key where
those are, so nothing is added atomically. Names: ``m`` queries, ``s`` places of a list, ``d`` and ``e``
dimensions of keys and values.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_listed(base, keys, row_step, WIDTH: tl.constexpr, width, step):
    """(m, s, WIDTH) float32: the listed rows of a matrix, zero where a key is -1."""
    d = tl.arange(0, WIDTH)
    places = base + (keys[:, :, None] * row_step + d[None, None, :] * step)
    return tl.load(places, mask=(keys >= 0)[:, :, None] & (d < width)[None, None, :], other=0.0).to(
        tl.float32
    )


@triton.jit
def load_few(base, rows, most, row_step, WIDTH: tl.constexpr, width, step):
    """(m, WIDTH) float32: rows of a matrix, zero where a row is not below ``most``."""
    d = tl.arange(0, WIDTH)
    places = base + (rows[:, None] * row_step + d[None, :] * step)
    return tl.load(places, mask=(rows < most)[:, None] & (d < width)[None, :], other=0.0).to(tl.float32)


@triton.jit
def list_logits(q, k, keys, bias, rows, s, bias_q, bias_s, inside, scale, BIAS: tl.constexpr):
    """Logits (m, s) of queries (m, d) and their listed keys (m, s, d), -inf where there is no key."""
    logits = tl.sum(q[:, None, :] * k, 2) * scale
    if BIAS:
        places = bias + (rows[:, None] * bias_q + s[None, :] * bias_s)
        logits += tl.load(places, mask=inside, other=0.0).to(tl.float32)
    return tl.where(keys >= 0, logits, float("-inf"))


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, index_ptr, bias_ptr, out_ptr, lse_ptr,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, i_b, i_h, i_n, i_s,
    bias_b, bias_h, bias_q, bias_s, scale, heads, share, q_len, listed, q_tiles, dim, v_dim,
    BIAS: tl.constexpr, BQ: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a few queries of one head."""
    tile = tl.program_id(0) % q_tiles
    both = (tl.program_id(0) // q_tiles).to(tl.int64)
    b, h = both // heads, both % heads
    rows = tile.to(tl.int64) * BQ + tl.arange(0, BQ)
    q = load_few(q_ptr + b * q_b + h * q_h, rows, q_len, q_n, BD, dim, q_d)
    k_base, v_base = k_ptr + b * k_b + (h // share) * k_h, v_ptr + b * v_b + (h // share) * v_h
    index, bias = index_ptr + b * i_b + h * i_h, bias_ptr + b * bias_b + h * bias_h
    high = tl.full((BQ,), float("-inf"), tl.float32)
    total = tl.zeros((BQ,), tl.float32)
    acc = tl.zeros((BQ, BE), tl.float32)
    for low in range(0, listed, BS):
        s = low + tl.arange(0, BS)
        inside = (rows < q_len)[:, None] & (s < listed)[None, :]
        keys = tl.load(index + (rows[:, None] * i_n + s[None, :] * i_s), mask=inside, other=-1).to(tl.int64)
        k = load_listed(k_base, keys, k_n, BD, dim, k_d)
        logits = list_logits(q, k, keys, bias, rows, s, bias_q, bias_s, inside, scale, BIAS)
        top = tl.maximum(high, tl.max(logits, 1))
        base = tl.where(top == float("-inf"), 0.0, top)
        p = tl.exp(logits - base[:, None])
        shrink = tl.exp(high - base)
        total = total * shrink + tl.sum(p, 1)
        v = load_listed(v_base, keys, v_n, BE, v_dim, v_d)
        acc = acc * shrink[:, None] + tl.sum(p[:, :, None] * v, 1)
        high = top
    none = total == 0.0
    safe = tl.where(none, 1.0, total)
    e = tl.arange(0, BE)
    places = out_ptr + both * q_len * v_dim + (rows[:, None] * v_dim + e[None, :])
    made = (acc / safe[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(places, made, mask=(rows < q_len)[:, None] & (e < v_dim)[None, :])
    lse = tl.where(none, float("inf"), high + tl.log(safe))
    tl.store(lse_ptr + both * q_len + rows, lse, mask=rows < q_len)


@triton.jit
def backward_q(
    q_ptr, k_ptr, v_ptr, index_ptr, bias_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr, dlogits_ptr,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, i_b, i_h, i_n, i_s,
    bias_b, bias_h, bias_q, bias_s, scale, heads, share, q_len, listed, q_tiles, dim, v_dim,
    BIAS: tl.constexpr, BQ: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Gradient of a few queries, and with BIAS that of their logits; +inf in ``lse`` is an empty list."""
    tile = tl.program_id(0) % q_tiles
    both = (tl.program_id(0) // q_tiles).to(tl.int64)
    b, h = both // heads, both % heads
    rows = tile.to(tl.int64) * BQ + tl.arange(0, BQ)
    q = load_few(q_ptr + b * q_b + h * q_h, rows, q_len, q_n, BD, dim, q_d)
    grad = load_few(grad_ptr + both * q_len * v_dim, rows, q_len, v_dim, BE, v_dim, 1)
    lse = tl.load(lse_ptr + both * q_len + rows, mask=rows < q_len, other=float("inf"))
    delta = tl.load(delta_ptr + both * q_len + rows, mask=rows < q_len, other=0.0)
    k_base, v_base = k_ptr + b * k_b + (h // share) * k_h, v_ptr + b * v_b + (h // share) * v_h
    index, bias = index_ptr + b * i_b + h * i_h, bias_ptr + b * bias_b + h * bias_h
    acc = tl.zeros((BQ, BD), tl.float32)
    for low in range(0, listed, BS):
        s = low + tl.arange(0, BS)
        inside = (rows < q_len)[:, None] & (s < listed)[None, :]
        keys = tl.load(index + (rows[:, None] * i_n + s[None, :] * i_s), mask=inside, other=-1).to(tl.int64)
        k = load_listed(k_base, keys, k_n, BD, dim, k_d)
        v = load_listed(v_base, keys, v_n, BE, v_dim, v_d)
        logits = list_logits(q, k, keys, bias, rows, s, bias_q, bias_s, inside, scale, BIAS)
        p = tl.exp(logits - lse[:, None])
        ds = p * (tl.sum(grad[:, None, :] * v, 2) - delta[:, None])
        acc += tl.sum(ds[:, :, None] * k, 1)
        if BIAS:
            places = dlogits_ptr + both * q_len * listed + (rows[:, None] * listed + s[None, :])
            tl.store(places, ds, mask=inside)
    d = tl.arange(0, BD)
    places = dq_ptr + both * q_len * dim + (rows[:, None] * dim + d[None, :])
    tl.store(
        places, (acc * scale).to(dq_ptr.dtype.element_ty), mask=(rows < q_len)[:, None] & (d < dim)[None, :]
    )


@triton.jit
def backward_kv(
    q_ptr, k_ptr, v_ptr, uses_ptr, starts_ptr, bias_ptr, grad_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, batch_step, head_step,
    bias_b, bias_h, bias_q, bias_s, scale, heads, share, q_len, k_len, listed, dim, v_dim,
    BIAS: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Gradients of one key and value.

    ``uses`` holds the places of lists, as ``query * listed + place``, sorted by the key that they name within
    each group ``b * batch_step + h * head_step`` of lists; ``starts`` where those of each key begin.
    """
    key = (tl.program_id(0) % k_len).to(tl.int64)
    both = (tl.program_id(0) // k_len).to(tl.int64)
    k_heads = heads // share
    b, k_head = both // k_heads, both % k_heads
    d, e = tl.arange(0, BD), tl.arange(0, BE)
    k = tl.load(k_ptr + b * k_b + k_head * k_h + key * k_n + d * k_d, mask=d < dim, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + b * v_b + k_head * v_h + key * v_n + e * v_d, mask=e < v_dim, other=0.0).to(
        tl.float32
    )
    dk = tl.zeros((BD,), tl.float32)
    dv = tl.zeros((BE,), tl.float32)
    for member in range(0, share):
        h = k_head * share + member
        row = (b * heads + h) * q_len
        place = starts_ptr + (b * batch_step + h * head_step) * k_len + key
        stop = tl.load(place + 1)
        for low in range(tl.load(place), stop, BS):
            at = low + tl.arange(0, BS)
            use = tl.load(uses_ptr + at, mask=at < stop, other=0)
            query = tl.where(at < stop, use // listed, q_len)
            q = load_few(q_ptr + b * q_b + h * q_h, query, q_len, q_n, BD, dim, q_d)
            grad = load_few(grad_ptr + row * v_dim, query, q_len, v_dim, BE, v_dim, 1)
            lse = tl.load(lse_ptr + row + query, mask=at < stop, other=float("inf"))
            delta = tl.load(delta_ptr + row + query, mask=at < stop, other=0.0)
            logits = tl.sum(q * k[None, :], 1) * scale
            if BIAS:
                places = bias_ptr + b * bias_b + h * bias_h + query * bias_q + use % listed * bias_s
                logits += tl.load(places, mask=at < stop, other=0.0).to(tl.float32)
            p = tl.exp(logits - lse)
            dv += tl.sum(p[:, None] * grad, 0)
            ds = p * (tl.sum(grad * v[None, :], 1) - delta)
            dk += tl.sum(ds[:, None] * q, 0)
    at = both * k_len + key
    tl.store(dk_ptr + at * dim + d, (dk * scale).to(dk_ptr.dtype.element_ty), mask=d < dim)
    tl.store(dv_ptr + at * v_dim + e, dv.to(dv_ptr.dtype.element_ty), mask=e < v_dim)
