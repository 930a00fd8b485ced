"""Triton kernels of attention over the edges of a graph: logits, softmax and sum in one walk.

The backward recomputes the weights from the log-sum-exp. With ``p = exp(s - lse)`` and ``delta`` the sum of
``grad * out`` per node, ``ds = p * (grad . v - delta)``: a walk over the edges that reach a node gives its
``dq`` and the gradient of the bias, a walk over those that leave one gives ``dk`` and ``dv``.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import load_node, load_nodes, names


@triton.jit
def edge_bias(bias_ptr, edge, b_e, shift, real, BIAS: tl.constexpr, BE: tl.constexpr):
    """Bias of some edges, 0 without one."""
    if BIAS:
        return tl.load(bias_ptr + shift + edge * b_e, mask=real, other=0.0).to(tl.float32)
    return tl.zeros((BE,), tl.float32)


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, bias_ptr, out_ptr, lse_ptr, ptr, index,
    q_n, q_h, q_d, k_n, k_h, k_d, v_n, v_h, v_d, b_e, b_h, scale, rows, heads, dim, v_dim,
    BIAS: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of one node, of one head."""
    row = (tl.program_id(0) % rows).to(tl.int64)
    h = (tl.program_id(0) // rows).to(tl.int64)
    d, f = tl.arange(0, BD), tl.arange(0, BV)
    q = load_node(q_ptr + row * q_n + h * q_h, d, q_d, dim) * scale
    high, total = tl.full((1,), float("-inf"), tl.float32), tl.zeros((1,), tl.float32)
    acc = tl.zeros((BV,), tl.float32)
    end = tl.load(ptr + row + 1)
    for first in range(tl.load(ptr + row), end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        real = e < end
        other = tl.load(index + e, mask=real, other=0)
        s = tl.sum(load_nodes(k_ptr + h * k_h, other, k_n, d, k_d, real, dim) * q[None, :], 1)
        s += edge_bias(bias_ptr, e, b_e, h * b_h, real, BIAS, BE)
        s = tl.where(real, s, float("-inf"))
        top = tl.maximum(high, tl.max(s, 0))
        base = tl.where(top == float("-inf"), 0.0, top)
        p = tl.exp(s - base)
        shrink = tl.exp(high - base)
        total = total * shrink + tl.sum(p, 0)
        v = load_nodes(v_ptr + h * v_h, other, v_n, f, v_d, real, v_dim)
        acc = acc * shrink + tl.sum(p[:, None] * v, 0)
        high = top
    safe = tl.where(total == 0.0, 1.0, total)
    place = row * heads + h
    tl.store(out_ptr + place * v_dim + f, (acc / safe).to(out_ptr.dtype.element_ty), mask=f < v_dim)
    lse = tl.where(total == 0.0, float("-inf"), high + tl.log(safe))
    tl.store(lse_ptr + place + tl.arange(0, 1), lse)


@triton.jit
def backward_rows(
    q_ptr, k_ptr, v_ptr, bias_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr, db_ptr, ptr, index,
    q_n, q_h, q_d, k_n, k_h, k_d, v_n, v_h, v_d, b_e, b_h, scale, rows, heads, dim, v_dim,
    BIAS: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Gradients of one node's query and of the bias of its edges, of one head."""
    row = (tl.program_id(0) % rows).to(tl.int64)
    h = (tl.program_id(0) // rows).to(tl.int64)
    d, f = tl.arange(0, BD), tl.arange(0, BV)
    place = row * heads + h
    q = load_node(q_ptr + row * q_n + h * q_h, d, q_d, dim) * scale
    grad = load_node(grad_ptr + place * v_dim, f, 1, v_dim)
    lse, delta = tl.load(lse_ptr + place), tl.load(delta_ptr + place)
    acc = tl.zeros((BD,), tl.float32)
    end = tl.load(ptr + row + 1)
    for first in range(tl.load(ptr + row), end, BE):
        e = (first + tl.arange(0, BE)).to(tl.int64)
        real = e < end
        other = tl.load(index + e, mask=real, other=0)
        k = load_nodes(k_ptr + h * k_h, other, k_n, d, k_d, real, dim)
        s = tl.sum(k * q[None, :], 1) + edge_bias(bias_ptr, e, b_e, h * b_h, real, BIAS, BE)
        p = tl.exp(tl.where(real, s, float("-inf")) - lse)
        v = load_nodes(v_ptr + h * v_h, other, v_n, f, v_d, real, v_dim)
        ds = p * (tl.sum(v * grad[None, :], 1) - delta)
        acc += tl.sum(ds[:, None] * k, 0)
        if BIAS:
            tl.store(db_ptr + e * heads + h, ds.to(db_ptr.dtype.element_ty), mask=real)
    tl.store(dq_ptr + place * dim + d, (acc * scale).to(dq_ptr.dtype.element_ty), mask=d < dim)


@triton.jit
def backward_columns(
    q_ptr, k_ptr, v_ptr, bias_ptr, grad_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, ptr, index, order,
    q_n, q_h, q_d, k_n, k_h, k_d, v_n, v_h, v_d, b_e, b_h, scale, columns, heads, dim, v_dim,
    BIAS: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Gradients of one node's key and value, of one head, over the edges that leave it."""
    node = (tl.program_id(0) % columns).to(tl.int64)
    h = (tl.program_id(0) // columns).to(tl.int64)
    d, f = tl.arange(0, BD), tl.arange(0, BV)
    k = load_node(k_ptr + node * k_n + h * k_h, d, k_d, dim) * scale
    v = load_node(v_ptr + node * v_n + h * v_h, f, v_d, v_dim)
    dk, dv = tl.zeros((BD,), tl.float32), tl.zeros((BV,), tl.float32)
    end = tl.load(ptr + node + 1)
    for first in range(tl.load(ptr + node), end, BE):
        e = first + tl.arange(0, BE)
        real = e < end
        row = tl.load(index + e, mask=real, other=0).to(tl.int64)
        place = row * heads + h
        q = load_nodes(q_ptr + h * q_h, row, q_n, d, q_d, real, dim)
        edge = names(order, e, real, True)
        s = tl.sum(q * k[None, :], 1) + edge_bias(bias_ptr, edge, b_e, h * b_h, real, BIAS, BE)
        lse = tl.load(lse_ptr + place, mask=real, other=float("inf"))
        p = tl.exp(tl.where(real, s, float("-inf")) - lse)
        grad = load_nodes(grad_ptr + h * v_dim, row, heads * v_dim, f, 1, real, v_dim)
        dv += tl.sum(p[:, None] * grad, 0)
        delta = tl.load(delta_ptr + place, mask=real, other=0.0)
        ds = p * (tl.sum(grad * v[None, :], 1) - delta)
        dk += tl.sum(ds[:, None] * q, 0)
    place = node * heads + h
    tl.store(dk_ptr + place * dim + d, (dk * scale).to(dk_ptr.dtype.element_ty), mask=d < dim)
    tl.store(dv_ptr + place * v_dim + f, dv.to(dv_ptr.dtype.element_ty), mask=f < v_dim)
