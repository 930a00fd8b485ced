"""Triton kernels over the edges of a graph, without atomic additions: a program owns what it writes.

A program walks over the edges of one node (``ptr``, ``index``; ``order`` names edges of a transposed graph by
their number in the graph), some at a time. Everything is computed in float32. Nodes and edges are int32 or
int64 in memory and int64 in addresses.

Names: ``e`` runs over edges, ``d`` over features, ``h`` is a head; ``x_n, x_h, x_d`` are strides.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_nodes(base, nodes, step, d, d_step, real, dim):
    """Rows of features (edges, D) in float32, zero where an edge or a feature is not real."""
    places = base + nodes.to(tl.int64)[:, None] * step + d[None, :] * d_step
    return tl.load(places, mask=real[:, None] & (d[None, :] < dim), other=0.0).to(tl.float32)


@triton.jit
def load_node(base, d, d_step, dim):
    """One row of features (D,) in float32."""
    return tl.load(base + d * d_step, mask=d < dim, other=0.0).to(tl.float32)


@triton.jit
def names(order, places, real, ORDER: tl.constexpr):
    """The graph's number of each edge, int64."""
    if ORDER:
        return tl.load(order + places, mask=real, other=0).to(tl.int64)
    return places.to(tl.int64)


@triton.jit
def sums(
    x_ptr, w_ptr, out_ptr, ptr, index, order, x_n, x_h, x_d, w_e, w_h, rows, heads, dim, tiles,
    WEIGHT: tl.constexpr, ORDER: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Weighted sum over the edges of one node, of one head, for one tile of features."""
    pid = tl.program_id(0)
    d = (pid % tiles) * BD + tl.arange(0, BD)
    row = ((pid // tiles) % rows).to(tl.int64)
    h = (pid // (tiles * rows)).to(tl.int64)
    acc = tl.zeros((BD,), tl.float32)
    end = tl.load(ptr + row + 1)
    for first in range(tl.load(ptr + row), end, BE):
        e = first + tl.arange(0, BE)
        real = e < end
        other = tl.load(index + e, mask=real, other=0)
        value = load_nodes(x_ptr + h * x_h, other, x_n, d, x_d, real, dim)
        if WEIGHT:
            edge = names(order, e, real, ORDER)
            weight = tl.load(w_ptr + edge * w_e + h * w_h, mask=real, other=0.0).to(tl.float32)
            value *= weight[:, None]
        acc += tl.sum(value, 0)
    tl.store(out_ptr + (row * heads + h) * dim + d, acc.to(out_ptr.dtype.element_ty), mask=d < dim)


@triton.jit
def products(
    a_ptr, b_ptr, out_ptr, row, index, a_n, a_h, a_d, b_n, b_h, b_d, edges, heads, dim, blocks,
    BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Product of the two ends of some edges, for one head."""
    pid = tl.program_id(0)
    e = (pid % blocks).to(tl.int64) * BE + tl.arange(0, BE)
    h = (pid // blocks).to(tl.int64)
    real = e < edges
    here, there = tl.load(row + e, mask=real, other=0), tl.load(index + e, mask=real, other=0)
    acc = tl.zeros((BE,), tl.float32)
    for first in range(0, dim, BD):
        d = first + tl.arange(0, BD)
        a = load_nodes(a_ptr + h * a_h, here, a_n, d, a_d, real, dim)
        acc += tl.sum(a * load_nodes(b_ptr + h * b_h, there, b_n, d, b_d, real, dim), 1)
    tl.store(out_ptr + e * heads + h, acc.to(out_ptr.dtype.element_ty), mask=real)


@triton.jit
def softmax(s_ptr, out_ptr, ptr, s_e, s_h, rows, heads, BE: tl.constexpr):
    """Softmax over the edges of one node, of one head: once for the maximum and the sum, once to write."""
    row = (tl.program_id(0) % rows).to(tl.int64)
    h = (tl.program_id(0) // rows).to(tl.int64)
    start, end = tl.load(ptr + row), tl.load(ptr + row + 1)
    high = tl.full((BE,), float("-inf"), tl.float32)
    total = tl.zeros((BE,), tl.float32)
    for first in range(start, end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        s = tl.load(s_ptr + e * s_e + h * s_h, mask=e < end, other=float("-inf")).to(tl.float32)
        top = tl.maximum(high, s)
        base = tl.where(top == float("-inf"), 0.0, top)
        total = total * tl.exp(high - base) + tl.exp(s - base)
        high = top
    most = tl.max(high, 0)
    most = tl.where(most == float("-inf"), 0.0, most)
    scale = 1.0 / tl.where(end > start, tl.sum(total * tl.exp(high - most), 0), 1.0)
    for first in range(start, end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        s = tl.load(s_ptr + e * s_e + h * s_h, mask=e < end, other=float("-inf")).to(tl.float32)
        weight = tl.exp(s - most) * scale
        tl.store(out_ptr + e * heads + h, weight.to(out_ptr.dtype.element_ty), mask=e < end)


@triton.jit
def softmax_backward(w_ptr, grad_ptr, out_ptr, ptr, w_e, w_h, g_e, g_h, rows, heads, BE: tl.constexpr):
    """``weights * (grad - sum of weights * grad)`` over the edges of one node, of one head."""
    row = (tl.program_id(0) % rows).to(tl.int64)
    h = (tl.program_id(0) // rows).to(tl.int64)
    start, end = tl.load(ptr + row), tl.load(ptr + row + 1)
    total = tl.zeros((BE,), tl.float32)
    for first in range(start, end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        w = tl.load(w_ptr + e * w_e + h * w_h, mask=e < end, other=0.0).to(tl.float32)
        total += w * tl.load(grad_ptr + e * g_e + h * g_h, mask=e < end, other=0.0).to(tl.float32)
    shift = tl.sum(total, 0)
    for first in range(start, end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        w = tl.load(w_ptr + e * w_e + h * w_h, mask=e < end, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + e * g_e + h * g_h, mask=e < end, other=0.0).to(tl.float32)
        value = w * (grad - shift)
        tl.store(out_ptr + e * heads + h, value.to(out_ptr.dtype.element_ty), mask=e < end)


@triton.jit
def messages(value, w_ptr, edge, real, WEIGHT: tl.constexpr, x_ptr):
    """``weight * value`` rounded to the features' dtype, as it was when maxima were compared."""
    if WEIGHT:
        value *= tl.load(w_ptr + edge, mask=real, other=0.0).to(tl.float32)[:, None]
    return value.to(x_ptr.dtype.element_ty).to(tl.float32)


@triton.jit
def maxima(
    x_ptr, w_ptr, out_ptr, ties_ptr, ptr, index, x_n, x_d, dim, tiles,
    WEIGHT: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Largest message to one node for one tile of features, and how many edges reach it."""
    d = (tl.program_id(0) % tiles) * BD + tl.arange(0, BD)
    row = (tl.program_id(0) // tiles).to(tl.int64)
    start, end = tl.load(ptr + row), tl.load(ptr + row + 1)
    high = tl.full((BD,), float("-inf"), tl.float32)
    ties = tl.zeros((BD,), tl.int32)
    for first in range(start, end, BE):
        e = first + tl.arange(0, BE)
        real = e < end
        value = load_nodes(x_ptr, tl.load(index + e, mask=real, other=0), x_n, d, x_d, real, dim)
        value = tl.where(real[:, None], messages(value, w_ptr, e, real, WEIGHT, x_ptr), float("-inf"))
        top = tl.maximum(high, tl.max(value, 0))
        count = tl.sum(((value == top[None, :]) & real[:, None]).to(tl.int32), 0)
        ties = tl.where(top == high, ties, 0) + count
        high = top
    out = tl.where(ties > 0, high, 0.0)
    tl.store(out_ptr + row * dim + d, out.to(out_ptr.dtype.element_ty), mask=d < dim)
    tl.store(ties_ptr + row * dim + d, ties, mask=d < dim)


@triton.jit
def maxima_to_nodes(
    share_ptr, out_ptr, x_ptr, w_ptr, dx_ptr, ptr, index, order, x_n, x_d, dim, tiles,
    WEIGHT: tl.constexpr, ORDER: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradient of one sending node for one tile of features: the shares of the maxima that it reaches."""
    d = (tl.program_id(0) % tiles) * BD + tl.arange(0, BD)
    node = (tl.program_id(0) // tiles).to(tl.int64)
    x = load_node(x_ptr + node * x_n, d, x_d, dim)
    acc = tl.zeros((BD,), tl.float32)
    end = tl.load(ptr + node + 1)
    for first in range(tl.load(ptr + node), end, BE):
        e = first + tl.arange(0, BE)
        real = e < end
        row, edge = tl.load(index + e, mask=real, other=0), names(order, e, real, ORDER)
        sent = messages(tl.zeros((BE, BD), tl.float32) + x[None, :], w_ptr, edge, real, WEIGHT, x_ptr)
        hit = (sent == load_nodes(out_ptr, row, dim, d, 1, real, dim)) & real[:, None]
        share = load_nodes(share_ptr, row, dim, d, 1, real, dim)
        if WEIGHT:
            share *= tl.load(w_ptr + edge, mask=real, other=0.0).to(tl.float32)[:, None]
        acc += tl.sum(tl.where(hit, share, 0.0), 0)
    tl.store(dx_ptr + node * dim + d, acc.to(dx_ptr.dtype.element_ty), mask=d < dim)


@triton.jit
def maxima_to_edges(
    share_ptr, out_ptr, x_ptr, w_ptr, dw_ptr, row, index, x_n, x_d, edges, dim,
    BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradient of the weights of some edges."""
    e = tl.program_id(0).to(tl.int64) * BE + tl.arange(0, BE)
    real = e < edges
    here, there = tl.load(row + e, mask=real, other=0), tl.load(index + e, mask=real, other=0)
    acc = tl.zeros((BE,), tl.float32)
    for first in range(0, dim, BD):
        d = first + tl.arange(0, BD)
        x = load_nodes(x_ptr, there, x_n, d, x_d, real, dim)
        hit = messages(x, w_ptr, e, real, True, x_ptr) == load_nodes(out_ptr, here, dim, d, 1, real, dim)
        acc += tl.sum(tl.where(hit, x * load_nodes(share_ptr, here, dim, d, 1, real, dim), 0.0), 1)
    tl.store(dw_ptr + e, acc.to(dw_ptr.dtype.element_ty), mask=real)
