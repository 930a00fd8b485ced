"""Triton kernels of short causal filters, one program for each tile of positions and block of channels.

``p`` is a position of the input with W - 1 positions of state in front of it, so it counts from ``1 - W``.
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(base, p, columns, length, width, step, column_step):
    """(positions, columns) in float32, zero outside."""
    places = base + (p.to(tl.int64) * step)[:, None] + (columns.to(tl.int64) * column_step)[None, :]
    inside = ((p >= 0) & (p < length))[:, None] & (columns < width)[None, :]
    return tl.load(places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def filtered(
    x_base, weight_ptr, bias_ptr, state_base, t, columns, length, width, x_t, x_d, state_t, state_d,
    W: tl.constexpr, BIAS: tl.constexpr, STATE: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The output in front of the activation. The weight is (W, D)."""
    out = tl.zeros((BT, BD), tl.float32)
    for w in range(W):
        p = t - (W - 1) + w
        x = load_tile(x_base, p, columns, length, width, x_t, x_d)
        if STATE:
            x += load_tile(state_base, p + (W - 1), columns, W - 1, width, state_t, state_d)
        weight = tl.load(weight_ptr + w * width + columns, mask=columns < width, other=0.0).to(tl.float32)
        out += x * weight[None, :]
    if BIAS:
        out += tl.load(bias_ptr + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    return out


@triton.jit
def forward(
    x_ptr, weight_ptr, bias_ptr, state_ptr, out_ptr, x_b, x_t, x_d, state_b, state_t, state_d,
    length, width, blocks, tiles,
    W: tl.constexpr, BIAS: tl.constexpr, STATE: tl.constexpr, SILU: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Output of one tile."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    tile, batch = program // blocks % tiles, (program // blocks // tiles).to(tl.int64)
    t = tile * BT + tl.arange(0, BT)
    out = filtered(
        x_ptr + batch * x_b, weight_ptr, bias_ptr, state_ptr + batch * state_b, t, columns, length, width,
        x_t, x_d, state_t, state_d, W, BIAS, STATE, BT, BD,
    )  # fmt: skip
    if SILU:
        out *= tl.sigmoid(out)
    places = out_ptr + batch * length * width + (t.to(tl.int64) * width)[:, None] + columns[None, :]
    inside = (t < length)[:, None] & (columns < width)[None, :]
    tl.store(places, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def grad_filter(
    grad_ptr, x_ptr, weight_ptr, bias_ptr, state_ptr, slope_ptr, dweight_ptr, dbias_ptr,
    x_b, x_t, x_d, state_b, state_t, state_d, length, width, blocks, tiles,
    W: tl.constexpr, BIAS: tl.constexpr, STATE: tl.constexpr, SILU: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients by tile of weight, (B, tiles, W, D), and bias; with SILU also that in front of it."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    tile, batch = program // blocks % tiles, (program // blocks // tiles).to(tl.int64)
    t, inside = tile * BT + tl.arange(0, BT), columns < width
    row = batch * length * width
    x_base, state_base = x_ptr + batch * x_b, state_ptr + batch * state_b
    slope = load_tile(grad_ptr + row, t, columns, length, width, width, 1)
    if SILU:
        out = filtered(
            x_base, weight_ptr, bias_ptr, state_base, t, columns, length, width,
            x_t, x_d, state_t, state_d, W, BIAS, STATE, BT, BD,
        )  # fmt: skip
        sigmoid = tl.sigmoid(out)
        slope *= sigmoid * (1 + out * (1 - sigmoid))
        places = slope_ptr + row + (t.to(tl.int64) * width)[:, None] + columns[None, :]
        tl.store(places, slope, mask=(t < length)[:, None] & inside[None, :])
    part = batch * tiles + tile
    if BIAS:
        tl.store(dbias_ptr + part * width + columns, tl.sum(slope, 0), mask=inside)
    for w in range(W):
        p = t - (W - 1) + w
        x = load_tile(x_base, p, columns, length, width, x_t, x_d)
        if STATE:
            x += load_tile(state_base, p + (W - 1), columns, W - 1, width, state_t, state_d)
        tl.store(dweight_ptr + (part * W + w) * width + columns, tl.sum(slope * x, 0), mask=inside)


@triton.jit
def grad_input(
    slope_ptr, weight_ptr, dx_ptr, dstate_ptr, length, width, blocks, tiles,
    W: tl.constexpr, STATE: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradients of input and state: the filter run backwards, over the positions of both."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    tile, batch = program // blocks % tiles, (program // blocks // tiles).to(tl.int64)
    p = tile * BT + tl.arange(0, BT)
    if STATE:
        p -= W - 1
    grad = tl.zeros((BT, BD), tl.float32)
    for w in range(W):
        weight = tl.load(weight_ptr + w * width + columns, mask=columns < width, other=0.0).to(tl.float32)
        slope_base = slope_ptr + batch * length * width
        grad += load_tile(slope_base, p + (W - 1 - w), columns, length, width, width, 1) * weight[None, :]
    inside = (columns < width)[None, :]
    places = dx_ptr + batch * length * width + (p.to(tl.int64) * width)[:, None] + columns[None, :]
    tl.store(places, grad.to(dx_ptr.dtype.element_ty), mask=((p >= 0) & (p < length))[:, None] & inside)
    if STATE:
        places = dstate_ptr + batch * (W - 1) * width + ((p + (W - 1)) * width)[:, None] + columns[None, :]
        tl.store(places, grad.to(dstate_ptr.dtype.element_ty), mask=(p < 0)[:, None] & inside)
