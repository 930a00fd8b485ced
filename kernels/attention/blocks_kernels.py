"""Triton kernels that choose blocks: means of blocks, scores of all pairs, the best few of a row."""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def means(
    x_ptr, out_ptr, x_b, x_h, x_n, x_d, heads, length, count, block, dim,
    BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Mean of one block of rows, float32 to a contiguous (B, H, count, dim)."""
    place = (tl.program_id(0) % count).to(tl.int64)
    both = (tl.program_id(0) // count).to(tl.int64)
    base = x_ptr + both // heads * x_b + both % heads * x_h
    d = tl.arange(0, BD)
    stop = tl.minimum((place + 1) * block, length)
    acc = tl.zeros((BD,), tl.float32)
    for low in range(place * block, stop, BN):
        rows = low + tl.arange(0, BN)
        places = base + (rows[:, None] * x_n + d[None, :] * x_d)
        x = tl.load(places, mask=(rows < stop)[:, None] & (d < dim)[None, :], other=0.0)
        acc += tl.sum(x.to(tl.float32), 0)
    made = acc / (stop - place * block).to(tl.float32)
    tl.store(out_ptr + (both * count + place) * dim + d, made, mask=d < dim)


@triton.jit
def scores(
    q_ptr, k_ptr, out_ptr, q_g, q_n, q_d, heads, share, q_count, k_count, q_tiles, past, dim,
    CAUSAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Products of a tile of query means with all key means, float32 (B, H, q_count, k_count).

    Heads of the query means lie ``q_g`` apart. With CAUSAL the block ``query + past`` gets +inf, later ones
    -inf.
    """
    tile = (tl.program_id(0) % q_tiles).to(tl.int64)
    both = (tl.program_id(0) // q_tiles).to(tl.int64)
    k_base = k_ptr + (both // heads * (heads // share) + both % heads // share) * k_count * dim
    rows, d = tile * BM + tl.arange(0, BM), tl.arange(0, BD)
    places = q_ptr + both * q_g + (rows[:, None] * q_n + d[None, :] * q_d)
    q = tl.load(places, mask=(rows < q_count)[:, None] & (d < dim)[None, :], other=0.0).to(tl.float32)
    for low in range(0, k_count, BN):
        cols = low + tl.arange(0, BN)
        k = tl.load(
            k_base + (cols[:, None] * dim + d[None, :]),
            mask=(cols < k_count)[:, None] & (d < dim)[None, :],
            other=0.0,
        )
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        if CAUSAL:
            own = (rows + past)[:, None]
            s = tl.where(cols[None, :] == own, float("inf"), s)
            s = tl.where(cols[None, :] > own, float("-inf"), s)
        at = out_ptr + both * q_count * k_count + (rows[:, None] * k_count + cols[None, :])
        tl.store(at, s, mask=(rows < q_count)[:, None] & (cols < k_count)[None, :])


@triton.jit
def best(scores_ptr, out_ptr, k_count, topk, BN: tl.constexpr):
    """Indices of the largest scores of one row, largest first, int64; -1 after the last that is finite."""
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BN)
    s = tl.load(scores_ptr + row * k_count + n, mask=n < k_count, other=float("-inf"))
    for place in range(0, topk):
        high = tl.max(s, 0)
        at = tl.argmax(s, 0)
        tl.store(out_ptr + row * topk + place, tl.where(high == float("-inf"), -1, at).to(tl.int64))
        s = tl.where(n == at, float("-inf"), s)
