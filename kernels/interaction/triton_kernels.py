"""Triton kernels of attention among fields: one tile holds a whole problem, one program does several.

A row has a few dozen fields, so that all logits of one head of one row are one tile. Softmax needs no running
maximum, and the backward computes the logits again and all gradients from one tile: no second pass, no
atomic additions. Consecutive problems are the heads of one row, whose vectors lie side by side.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from ..attention.triton_kernels import dot, load_rows, store_rows

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_operand(base, rows, step, BD: tl.constexpr, dim, RECTIFY: tl.constexpr, WIDE: tl.constexpr):
    """(rows, BD) of a projection, after ReLU with RECTIFY."""
    x = load_rows(base, rows, step, BD, dim, 1, WIDE)
    if RECTIFY:
        x = tl.where(x.to(tl.float32) > 0, x, 0.0).to(base.dtype.element_ty)
    return x


@triton.jit
def softmax(q, k, scale, fields, BN: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr):
    """Attention weights (BN, BN) of one problem, 0 beyond its fields; a missing problem gets even ones."""
    s = dot(q, tl.trans(k), PRECISION, INTERPRET) * (tl.cast(scale, tl.float32) * LOG2E)
    s = tl.where((tl.arange(0, BN) < fields)[None, :], s, float("-inf"))
    p = tl.exp2(s - tl.max(s, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
def forward(
    q_ptr, k_ptr, v_ptr, rest_ptr, out_ptr,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, rest_b, rest_h, rest_n, out_b, out_h, out_n,
    scale, problems, heads, fields, dim, v_dim,
    COUNT: tl.constexpr, RECTIFY: tl.constexpr, FINISH: tl.constexpr, RESIDUAL: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Output of COUNT problems; with FINISH also plus ``rest`` (with RESIDUAL) and ReLU."""
    n = tl.arange(0, BN)
    for i in range(COUNT):
        place = tl.program_id(0).to(tl.int64) * COUNT + i
        rows = tl.where(n < tl.where(place < problems, fields, 0), n, -1)
        b, h = place // heads, place % heads
        q = load_operand(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, RECTIFY, WIDE)
        k = load_operand(k_ptr + b * k_b + h * k_h, rows, k_n, BD, dim, RECTIFY, WIDE)
        v = load_operand(v_ptr + b * v_b + h * v_h, rows, v_n, BE, v_dim, RECTIFY, WIDE)
        p = softmax(q, k, scale, fields, BN, PRECISION, INTERPRET)
        out = dot(p.to(v.dtype), v, PRECISION, INTERPRET)
        if RESIDUAL:
            rest = load_operand(rest_ptr + b * rest_b + h * rest_h, rows, rest_n, BE, v_dim, RECTIFY, WIDE)
            out += rest.to(tl.float32)
        if FINISH:
            out = tl.maximum(out, 0.0)
        store_rows(out_ptr + b * out_b + h * out_h, rows, out_n, BE, v_dim, out)


@triton.jit
def store_gradient(base, rows, step, BD: tl.constexpr, dim, value, operand, RECTIFY: tl.constexpr):
    """Write the gradient of a projection: none where ReLU held it at zero."""
    if RECTIFY:
        value = tl.where(operand.to(tl.float32) > 0, value, 0.0)
    store_rows(base, rows, step, BD, dim, value)


@triton.jit
def backward(
    q_ptr, k_ptr, v_ptr, rest_ptr, out_ptr, grad_ptr, dq_ptr, dk_ptr, dv_ptr, drest_ptr,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, rest_b, rest_h, rest_n, out_b, out_h, out_n,
    grad_b, grad_h, grad_n, dq_b, dq_h, dq_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n, drest_b, drest_h, drest_n,
    scale, problems, heads, fields, dim, v_dim,
    COUNT: tl.constexpr, RECTIFY: tl.constexpr, FINISH: tl.constexpr, RESIDUAL: tl.constexpr,
    BN: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients of COUNT problems; ``out`` is read with FINISH only, for the sign of its ReLU."""
    n = tl.arange(0, BN)
    for i in range(COUNT):
        place = tl.program_id(0).to(tl.int64) * COUNT + i
        rows = tl.where(n < tl.where(place < problems, fields, 0), n, -1)
        b, h = place // heads, place % heads
        grad = load_rows(grad_ptr + b * grad_b + h * grad_h, rows, grad_n, BE, v_dim, 1, WIDE)
        if FINISH:
            out = load_rows(out_ptr + b * out_b + h * out_h, rows, out_n, BE, v_dim, 1, WIDE)
            grad = tl.where(out.to(tl.float32) > 0, grad, 0.0).to(grad_ptr.dtype.element_ty)
        if RESIDUAL:
            rest = load_rows(rest_ptr + b * rest_b + h * rest_h, rows, rest_n, BE, v_dim, 1, WIDE)
            to = drest_ptr + b * drest_b + h * drest_h
            store_gradient(to, rows, drest_n, BE, v_dim, grad.to(tl.float32), rest, RECTIFY)
        q = load_operand(q_ptr + b * q_b + h * q_h, rows, q_n, BD, dim, RECTIFY, WIDE)
        k = load_operand(k_ptr + b * k_b + h * k_h, rows, k_n, BD, dim, RECTIFY, WIDE)
        p = softmax(q, k, scale, fields, BN, PRECISION, INTERPRET)
        v = load_operand(v_ptr + b * v_b + h * v_h, rows, v_n, BE, v_dim, RECTIFY, WIDE)
        dv = dot(tl.trans(p.to(grad.dtype)), grad, PRECISION, INTERPRET)
        store_gradient(dv_ptr + b * dv_b + h * dv_h, rows, dv_n, BE, v_dim, dv, v, RECTIFY)
        dp = dot(grad, tl.trans(v), PRECISION, INTERPRET)
        ds = p * (dp - tl.sum(p * dp, 1)[:, None]) * tl.cast(scale, tl.float32)
        dq = dot(ds.to(k.dtype), k, PRECISION, INTERPRET)
        store_gradient(dq_ptr + b * dq_b + h * dq_h, rows, dq_n, BD, dim, dq, q, RECTIFY)
        dk = dot(tl.trans(ds.to(q.dtype)), q, PRECISION, INTERPRET)
        store_gradient(dk_ptr + b * dk_b + h * dk_h, rows, dk_n, BD, dim, dk, k, RECTIFY)
