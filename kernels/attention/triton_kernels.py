"""Triton kernels of attention over a tile plan: forward, and a backward without atomic additions.

All follow one plan (:class:`graphrec.kernels.patterns.TilePlan`): a program owns a tile of queries (or of
keys) and walks over the tiles that it meets. Rows are read through the plan's row lists, so windows and image
tiles need no copy. What a partial tile shows comes as one bit per pair; a full tile reads no bits.

Names: ``m`` and ``n`` run over the queries and keys of a tile, ``d`` and ``e`` over the dimensions of keys
and values.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dot(a, b, PRECISION: tl.constexpr, INTERPRET: tl.constexpr):
    """``a @ b`` accumulated in float32. The interpreter multiplies bfloat16 wrongly, so it gets float32."""
    if INTERPRET:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def load_rows(base, rows, row_step, WIDTH: tl.constexpr, width, step, WIDE: tl.constexpr):
    """(rows, WIDTH) of a matrix, zero where a row is -1 and beyond ``width``. WIDE: offsets pass 2^31."""
    d = tl.arange(0, WIDTH)
    if WIDE:
        places = base + (rows.to(tl.int64)[:, None] * row_step + d.to(tl.int64)[None, :] * step)
    else:
        places = base + (rows[:, None] * row_step + d[None, :] * step)
    return tl.load(places, mask=(rows[:, None] >= 0) & (d[None, :] < width), other=0.0)


@triton.jit
def store_rows(base, rows, row_step, WIDTH: tl.constexpr, width, value):
    """Write (rows, WIDTH) to rows of a contiguous matrix, leaving out what :func:`load_rows` fills up."""
    d = tl.arange(0, WIDTH)
    places = base + (rows.to(tl.int64) * row_step)[:, None] + d[None, :]
    tl.store(places, value.to(base.dtype.element_ty), mask=(rows[:, None] >= 0) & (d[None, :] < width))


@triton.jit
def read_bits(bits, slot, BM: tl.constexpr, BN: tl.constexpr):
    """A tile of one-bit flags as (BM, BN) of 0 and 1."""
    n = tl.arange(0, BN)
    words = bits + slot.to(tl.int64) * (BM * (BN // 32)) + tl.arange(0, BM) * (BN // 32)
    row = tl.load(words)[:, None]
    for word in tl.static_range(1, BN // 32):
        row = tl.where((n // 32 == word)[None, :], tl.load(words + word)[:, None], row)
    return (row >> (n % 32)[None, :]) & 1


@triton.jit
def load_pairs(base, rows, cols, q_step, k_step, q_place, k_place, KIND: tl.constexpr, WIDE: tl.constexpr):
    """A number per pair of a tile, float32. KIND 1: a matrix. KIND 2: a row per query with ``k_step``
    columns, of which the difference of two places is one. A row of -1 reads row 0: hidden keys have no
    probability, filling queries no gradient.
    """
    i, j = tl.maximum(rows, 0), tl.maximum(cols, 0)
    if KIND == 2:
        column = tl.load(q_place + i)[:, None] - tl.load(k_place + j)[None, :]
        column = tl.minimum(tl.maximum(column, 0), k_step - 1)
        if WIDE:
            return tl.load(base + (i.to(tl.int64)[:, None] * q_step + column)).to(tl.float32)
        return tl.load(base + (i[:, None] * q_step + column)).to(tl.float32)
    if WIDE:
        places = base + (i.to(tl.int64)[:, None] * q_step + j.to(tl.int64)[None, :] * k_step)
    else:
        places = base + (i[:, None] * q_step + j[None, :] * k_step)
    return tl.load(places).to(tl.float32)


@triton.jit
def tile_logits(
    q, k, rows, cols, slot, bits, soft, penalty, scale, bias, bias_q, bias_k, q_place, k_place,
    BIAS: tl.constexpr, SOFT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Logits of one tile, -inf for hidden pairs. BIAS is 0 for none, 1 for a dense bias, 2 for a table."""
    s = dot(q, tl.trans(k), PRECISION, INTERPRET) * scale
    if BIAS > 0:
        s += load_pairs(bias, rows, cols, bias_q, bias_k, q_place, k_place, BIAS, WIDE)
    if slot >= 0:
        seen = read_bits(bits, slot, BM, BN)
        s = tl.where(seen != 0, s, float("-inf"))
        if SOFT:
            s += read_bits(soft, slot, BM, BN).to(tl.float32) * penalty
    return s


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, bias_ptr, times_ptr, out_ptr, lse_ptr,
    q_rows, k_rows, ptr, col, slots, bits, soft, q_place, k_place, tq_place, tk_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, bias_b, bias_h, bias_q, bias_k,
    times_b, times_h, times_q, times_k,
    scale, penalty, heads, share, q_len, q_tiles, batch_step, head_step, dim, v_dim,
    BIAS: tl.constexpr, TIMES: tl.constexpr, SOFT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of one tile of queries of one head."""
    tile = tl.program_id(0) % q_tiles
    both = tl.program_id(0) // q_tiles
    b, h = (both // heads).to(tl.int64), (both % heads).to(tl.int64)
    rows = tl.load(q_rows + tile * BM + tl.arange(0, BM))
    q = load_rows(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, q_d, WIDE)
    k_base, v_base = k_ptr + b * k_b + (h // share) * k_h, v_ptr + b * v_b + (h // share) * v_h
    bias = bias_ptr + b * bias_b + h * bias_h
    times = times_ptr + b * times_b + h * times_h
    plan = ptr + (b * batch_step + h * head_step) * q_tiles + tile
    high = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, BE), tl.float32)
    for entry in range(tl.load(plan), tl.load(plan + 1)):
        key_tile = tl.load(col + entry)
        cols = tl.load(k_rows + key_tile * BN + tl.arange(0, BN))
        k = load_rows(k_base, cols, k_n, BD, dim, k_d, WIDE)
        s = tile_logits(
            q, k, rows, cols, tl.load(slots + entry), bits, soft, penalty, scale, bias, bias_q, bias_k,
            q_place, k_place, BIAS, SOFT, BM, BN, PRECISION, INTERPRET, WIDE,
        )  # fmt: skip
        top = tl.maximum(high, tl.max(s, 1))
        base = tl.where(top == float("-inf"), 0.0, top)
        p = tl.exp(s - base[:, None])
        shrink = tl.exp(high - base)
        total = total * shrink + tl.sum(p, 1)
        if TIMES > 0:
            p *= load_pairs(times, rows, cols, times_q, times_k, tq_place, tk_place, TIMES, WIDE)
        v = load_rows(v_base, cols, v_n, BE, v_dim, v_d, WIDE)
        acc = acc * shrink[:, None] + dot(p.to(v.dtype), v, PRECISION, INTERPRET)
        high = top
    none = total == 0.0
    safe = tl.where(none, 1.0, total)
    store_rows(out_ptr + both.to(tl.int64) * q_len * v_dim, rows, v_dim, BE, v_dim, acc / safe[:, None])
    lse = tl.where(none, float("-inf"), high + tl.log(safe))
    tl.store(lse_ptr + both.to(tl.int64) * q_len + rows, lse, mask=rows >= 0)


@triton.jit
def load_lse(lse, rows):
    """Log-sum-exp of rows, +inf where nothing is seen, so that every probability there is 0."""
    value = tl.load(lse + rows, mask=rows >= 0, other=float("inf"))
    return tl.where(value == float("-inf"), float("inf"), value)


@triton.jit
def row_products(
    grad_ptr, out_ptr, lse_grad_ptr, delta_ptr, rows, width,
    HAS_LSE: tl.constexpr, BM: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """``delta = sum(grad * out) - lse_grad`` of each row; ``grad`` and ``out`` (rows, width), contiguous."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.arange(0, BE)
    place = row[:, None] * width + column[None, :]
    inside = (row < rows)[:, None] & (column < width)[None, :]
    grad = tl.load(grad_ptr + place, mask=inside, other=0.0).to(tl.float32)
    delta = tl.sum(grad * tl.load(out_ptr + place, mask=inside, other=0.0).to(tl.float32), 1)
    if HAS_LSE:
        delta -= tl.load(lse_grad_ptr + row, mask=row < rows, other=0.0)
    tl.store(delta_ptr + row, delta, mask=row < rows)


@triton.jit
def backward_q(
    q_ptr, k_ptr, v_ptr, bias_ptr, times_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr,
    q_rows, k_rows, ptr, col, slots, bits, soft, q_place, k_place, tq_place, tk_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, bias_b, bias_h, bias_q, bias_k,
    times_b, times_h, times_q, times_k,
    scale, penalty, heads, share, q_len, q_tiles, batch_step, head_step, dim, v_dim,
    BIAS: tl.constexpr, TIMES: tl.constexpr, SOFT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of queries. ``grad`` (B, H, Lq, Dv) and ``delta`` (B, H, Lq) are contiguous."""
    tile = tl.program_id(0) % q_tiles
    both = (tl.program_id(0) // q_tiles).to(tl.int64)
    b, h = both // heads, both % heads
    rows = tl.load(q_rows + tile * BM + tl.arange(0, BM))
    q = load_rows(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, q_d, WIDE)
    grad = load_rows(grad_ptr + both * q_len * v_dim, rows, v_dim, BE, v_dim, 1, WIDE)
    lse = load_lse(lse_ptr + both * q_len, rows)
    delta = tl.load(delta_ptr + both * q_len + rows, mask=rows >= 0, other=0.0)
    k_base, v_base = k_ptr + b * k_b + (h // share) * k_h, v_ptr + b * v_b + (h // share) * v_h
    bias = bias_ptr + b * bias_b + h * bias_h
    times = times_ptr + b * times_b + h * times_h
    plan = ptr + (b * batch_step + h * head_step) * q_tiles + tile
    acc = tl.zeros((BM, BD), tl.float32)
    for entry in range(tl.load(plan), tl.load(plan + 1)):
        cols = tl.load(k_rows + tl.load(col + entry) * BN + tl.arange(0, BN))
        k = load_rows(k_base, cols, k_n, BD, dim, k_d, WIDE)
        v = load_rows(v_base, cols, v_n, BE, v_dim, v_d, WIDE)
        s = tile_logits(
            q, k, rows, cols, tl.load(slots + entry), bits, soft, penalty, scale, bias, bias_q, bias_k,
            q_place, k_place, BIAS, SOFT, BM, BN, PRECISION, INTERPRET, WIDE,
        )  # fmt: skip
        p = tl.exp(s - lse[:, None])
        into = dot(grad, tl.trans(v), PRECISION, INTERPRET)
        if TIMES > 0:
            into *= load_pairs(times, rows, cols, times_q, times_k, tq_place, tk_place, TIMES, WIDE)
        ds = p * (into - delta[:, None])
        acc += dot(ds.to(k.dtype), k, PRECISION, INTERPRET)
    store_rows(dq_ptr + both * q_len * dim, rows, dim, BD, dim, acc * scale)


@triton.jit
def backward_kv(
    q_ptr, k_ptr, v_ptr, bias_ptr, times_ptr, grad_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    q_rows, k_rows, t_ptr, t_row, t_slots, bits, soft, q_place, k_place, tq_place, tk_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, bias_b, bias_h, bias_q, bias_k,
    times_b, times_h, times_q, times_k,
    scale, penalty, heads, share, q_len, k_len, k_tiles, batch_step, head_step, dim, v_dim,
    BIAS: tl.constexpr, TIMES: tl.constexpr, SOFT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of one tile of keys and values, over the query heads that share it."""
    tile = tl.program_id(0) % k_tiles
    both = (tl.program_id(0) // k_tiles).to(tl.int64)
    k_heads = heads // share
    b, k_head = both // k_heads, both % k_heads
    cols = tl.load(k_rows + tile * BN + tl.arange(0, BN))
    k = load_rows(k_ptr + b * k_b + k_head * k_h, cols, k_n, BD, dim, k_d, WIDE)
    v = load_rows(v_ptr + b * v_b + k_head * v_h, cols, v_n, BE, v_dim, v_d, WIDE)
    dk = tl.zeros((BN, BD), tl.float32)
    dv = tl.zeros((BN, BE), tl.float32)
    for member in range(0, share):
        h = k_head * share + member
        plan = t_ptr + (b * batch_step + h * head_step) * k_tiles + tile
        row = (b * heads + h) * q_len
        for entry in range(tl.load(plan), tl.load(plan + 1)):
            rows = tl.load(q_rows + tl.load(t_row + entry) * BM + tl.arange(0, BM))
            q = load_rows(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, q_d, WIDE)
            grad = load_rows(grad_ptr + row * v_dim, rows, v_dim, BE, v_dim, 1, WIDE)
            delta = tl.load(delta_ptr + row + rows, mask=rows >= 0, other=0.0)
            s = tile_logits(
                q, k, rows, cols, tl.load(t_slots + entry), bits, soft, penalty, scale,
                bias_ptr + b * bias_b + h * bias_h, bias_q, bias_k, q_place, k_place,
                BIAS, SOFT, BM, BN, PRECISION, INTERPRET, WIDE,
            )  # fmt: skip
            p = tl.exp(s - load_lse(lse_ptr + row, rows)[:, None])
            into = dot(grad, tl.trans(v), PRECISION, INTERPRET)
            ds = p * (into - delta[:, None])
            if TIMES > 0:
                times = times_ptr + b * times_b + h * times_h
                factor = load_pairs(times, rows, cols, times_q, times_k, tq_place, tk_place, TIMES, WIDE)
                ds = p * (into * factor - delta[:, None])
                p *= factor
            dv += dot(tl.trans(p.to(grad.dtype)), grad, PRECISION, INTERPRET)
            dk += dot(tl.trans(ds.to(q.dtype)), q, PRECISION, INTERPRET)
    store_rows(dk_ptr + both * k_len * dim, cols, dim, BD, dim, dk * scale)
    store_rows(dv_ptr + both * k_len * v_dim, cols, v_dim, BE, v_dim, dv)


@triton.jit
def backward_bias(
    q_ptr, k_ptr, v_ptr, bias_ptr, times_ptr, grad_ptr, lse_ptr, delta_ptr, tiles_ptr,
    q_rows, k_rows, owner, col, slots, bits, soft, q_place, k_place, tq_place, tk_place,
    q_b, q_h, q_n, q_d, k_b, k_h, k_n, k_d, v_b, v_h, v_n, v_d, bias_b, bias_h, bias_q, bias_k,
    times_b, times_h, times_q, times_k,
    scale, penalty, batch, heads, share, q_len, q_tiles, batch_step, head_step, dim, v_dim,
    entries, batch_parts, head_parts,
    OF_TIMES: tl.constexpr, BIAS: tl.constexpr, TIMES: tl.constexpr, SOFT: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Gradient of the logits, or of the factors on the probabilities, of one entry of the plan.

    It is summed over a part of the batch and of the heads.

    Part ``i`` of ``batch_parts`` holds the batch entries ``i``, ``i + batch_parts``, …; heads likewise. Tiles
    are written as float32 (batch_parts, head_parts, entries, BM, BN).
    """
    entry = (tl.program_id(0) % entries).to(tl.int64)
    part = (tl.program_id(0) // entries).to(tl.int64)
    own = tl.load(owner + entry)
    group = own // q_tiles
    rows = tl.load(q_rows + (own % q_tiles) * BM + tl.arange(0, BM))
    cols = tl.load(k_rows + tl.load(col + entry) * BN + tl.arange(0, BN))
    slot = tl.load(slots + entry)
    acc = tl.zeros((BM, BN), tl.float32)
    for b in range(part // head_parts, batch, batch_parts):
        for h in range(part % head_parts, heads, head_parts):
            if b * batch_step + h * head_step == group:
                i, j = tl.cast(b, tl.int64), tl.cast(h, tl.int64)
                q = load_rows(q_ptr + i * q_b + j * q_h, rows, q_n, BD, dim, q_d, WIDE)
                k = load_rows(k_ptr + i * k_b + (j // share) * k_h, cols, k_n, BD, dim, k_d, WIDE)
                v = load_rows(v_ptr + i * v_b + (j // share) * v_h, cols, v_n, BE, v_dim, v_d, WIDE)
                row = (i * heads + j) * q_len
                grad = load_rows(grad_ptr + row * v_dim, rows, v_dim, BE, v_dim, 1, WIDE)
                delta = tl.load(delta_ptr + row + rows, mask=rows >= 0, other=0.0)
                s = tile_logits(
                    q, k, rows, cols, slot, bits, soft, penalty, scale, bias_ptr + i * bias_b + j * bias_h,
                    bias_q, bias_k, q_place, k_place, BIAS, SOFT, BM, BN, PRECISION, INTERPRET, WIDE,
                )  # fmt: skip
                p = tl.exp(s - load_lse(lse_ptr + row, rows)[:, None])
                into = dot(grad, tl.trans(v), PRECISION, INTERPRET)
                if OF_TIMES:
                    acc += p * into
                else:
                    if TIMES > 0:
                        times = times_ptr + i * times_b + j * times_h
                        into *= load_pairs(
                            times, rows, cols, times_q, times_k, tq_place, tk_place, TIMES, WIDE
                        )
                    acc += p * (into - delta[:, None])
    m, n = tl.arange(0, BM), tl.arange(0, BN)
    tl.store(tiles_ptr + (part * entries + entry) * (BM * BN) + m[:, None] * BN + n[None, :], acc)
