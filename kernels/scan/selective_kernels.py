"""Triton kernels of the selective scan, one program for each chunk of positions and block of channels.

``chunk_ends`` computes what every chunk does to the N states of a channel, a scan over chunks turns that into
the states in front of every chunk, and ``forward`` computes outputs from there. The gradient goes the same
way backwards (``grad_ends``, a scan, ``gradients``), where each program computes the states of its chunk
again. Kept between forward and backward are the states between chunks only.

The gradient of ``exp(delta A) h[t - 1]`` needs that product: it is ``h[t] - delta B u``, as in the official
backward (state-spaces/mamba, selective_scan_bwd_kernel.cuh).

Names: ``s`` counts positions in working order (see :mod:`.triton_kernels`), ``x`` is ``delta * u``. States
are kept as (B, chunks, N, D), sums over the channels of a block as (blocks, B, T, N).
"""

# mypy: disallow-untyped-defs=False
from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import chain, load_steps, store_steps


@triton.jit
def load_column(base, s, length, step, BACK: tl.constexpr):
    """One number per position in float32, 0 outside."""
    t = s
    if BACK:
        t = length - 1 - s
    return tl.load(base + t.to(tl.int64) * step, mask=s < length, other=0.0).to(tl.float32)


@triton.jit
def gated(grad_base, gate_base, s, columns, length, width, step, column_step, GATE: tl.constexpr,
          BACK: tl.constexpr):  # fmt: skip
    """Gradient of the output in front of the gate, and what the gate's own gradient is made of."""
    grad = load_steps(grad_base, s, columns, length, width, width, 1, 0.0, BACK)
    slope = grad
    if GATE:
        z = load_steps(gate_base, s, columns, length, width, step, column_step, 0.0, BACK)
        sigmoid = tl.sigmoid(z)
        slope = grad * sigmoid * (1 + z * (1 - sigmoid))
        grad = grad * z * sigmoid
    return grad, slope


@triton.jit
def chunk_ends(
    u_ptr, delta_ptr, rate_ptr, in_ptr, decay_ptr, end_ptr,
    u_b, u_t, u_d, delta_b, delta_t, delta_d, in_b, in_t, in_n,
    length, width, inner, blocks, chunks,
    BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a chunk does to the states in front of it, ``h -> decay * h + end``, both (B, chunks, N, D)."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    chunk, batch = program // blocks % chunks, (program // blocks // chunks).to(tl.int64)
    s, inside = chunk * BT + tl.arange(0, BT), columns < width
    delta = load_steps(delta_ptr + batch * delta_b, s, columns, length, width, delta_t, delta_d, 0.0, BACK)
    x = delta * load_steps(u_ptr + batch * u_b, s, columns, length, width, u_t, u_d, 0.0, BACK)
    later = tl.cumsum(delta, 0, reverse=True) - delta
    total = tl.sum(delta, 0)
    for n in range(inner):
        rate = tl.load(rate_ptr + n * width + columns, mask=inside, other=0.0)
        read_in = load_column(in_ptr + batch * in_b + n * in_n, s, length, in_t, BACK)
        end = tl.sum(tl.exp(later * rate[None, :]) * x * read_in[:, None], 0)
        place = ((batch * chunks + chunk) * inner + n) * width + columns
        tl.store(decay_ptr + place, tl.exp(total * rate), mask=inside)
        tl.store(end_ptr + place, end, mask=inside)


@triton.jit
def forward(
    u_ptr, delta_ptr, rate_ptr, in_ptr, read_ptr, skip_ptr, gate_ptr, starts_ptr, out_ptr,
    u_b, u_t, u_d, delta_b, delta_t, delta_d, in_b, in_t, in_n, read_b, read_t, read_n,
    gate_b, gate_t, gate_d, length, width, inner, blocks, chunks,
    SKIP: tl.constexpr, GATE: tl.constexpr, BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Output of a chunk from ``starts`` (B, chunks + 1, N, D): states in front of chunks, and the last."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    chunk, batch = program // blocks % chunks, (program // blocks // chunks).to(tl.int64)
    s, inside = chunk * BT + tl.arange(0, BT), columns < width
    u = load_steps(u_ptr + batch * u_b, s, columns, length, width, u_t, u_d, 0.0, BACK)
    delta = load_steps(delta_ptr + batch * delta_b, s, columns, length, width, delta_t, delta_d, 0.0, BACK)
    x, out = delta * u, tl.zeros((BT, BD), tl.float32)
    front = (batch * (chunks + 1) + chunk) * inner
    for n in range(inner):
        rate = tl.load(rate_ptr + n * width + columns, mask=inside, other=0.0)
        read_in = load_column(in_ptr + batch * in_b + n * in_n, s, length, in_t, BACK)
        read_out = load_column(read_ptr + batch * read_b + n * read_n, s, length, read_t, BACK)
        start = tl.load(starts_ptr + (front + n) * width + columns, mask=inside, other=0.0)
        factor, inner_states = tl.associative_scan(
            (tl.exp(delta * rate[None, :]), x * read_in[:, None]), 0, chain
        )
        out += (inner_states + factor * start[None, :]) * read_out[:, None]
    if SKIP:
        out += u * tl.load(skip_ptr + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    if GATE:
        z = load_steps(gate_ptr + batch * gate_b, s, columns, length, width, gate_t, gate_d, 0.0, BACK)
        out *= z * tl.sigmoid(z)
    store_steps(out_ptr + batch * length * width, s, columns, length, width, out, BACK)


@triton.jit
def grad_ends(
    grad_ptr, delta_ptr, rate_ptr, read_ptr, gate_ptr, decay_ptr, end_ptr,
    delta_b, delta_t, delta_d, read_b, read_t, read_n, gate_b, gate_t, gate_d,
    length, width, inner, blocks, chunks,
    GATE: tl.constexpr, BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Gradient of the states in front of a chunk from those behind it, ``g -> decay * g + end``."""
    program = tl.program_id(0)
    columns = program % blocks * BD + tl.arange(0, BD)
    chunk, batch = program // blocks % chunks, (program // blocks // chunks).to(tl.int64)
    s, inside = chunk * BT + tl.arange(0, BT), columns < width
    delta = load_steps(delta_ptr + batch * delta_b, s, columns, length, width, delta_t, delta_d, 0.0, BACK)
    grad, _ = gated(
        grad_ptr + batch * length * width, gate_ptr + batch * gate_b, s, columns,
        length, width, gate_t, gate_d, GATE, BACK,
    )  # fmt: skip
    until, total = tl.cumsum(delta, 0), tl.sum(delta, 0)
    for n in range(inner):
        rate = tl.load(rate_ptr + n * width + columns, mask=inside, other=0.0)
        read_out = load_column(read_ptr + batch * read_b + n * read_n, s, length, read_t, BACK)
        end = tl.sum(tl.exp(until * rate[None, :]) * grad * read_out[:, None], 0)
        place = ((batch * chunks + chunk) * inner + n) * width + columns
        tl.store(decay_ptr + place, tl.exp(total * rate), mask=inside)
        tl.store(end_ptr + place, end, mask=inside)


@triton.jit
def gradients(
    grad_ptr, u_ptr, delta_ptr, rate_ptr, in_ptr, read_ptr, skip_ptr, gate_ptr,
    starts_ptr, arriving_ptr,
    du_ptr, ddelta_ptr, drate_ptr, din_ptr, dread_ptr, dskip_ptr, dgate_ptr,
    u_b, u_t, u_d, delta_b, delta_t, delta_d, in_b, in_t, in_n, read_b, read_t, read_n,
    gate_b, gate_t, gate_d, length, width, inner, blocks, chunks, batches,
    SKIP: tl.constexpr, GATE: tl.constexpr, BACK: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk. ``arriving`` holds the gradients of ``starts``.

    Sums over positions come per chunk, sums over channels per block: the caller adds them up.
    """
    program = tl.program_id(0)
    block = program % blocks
    columns = block * BD + tl.arange(0, BD)
    chunk, batch = program // blocks % chunks, (program // blocks // chunks).to(tl.int64)
    s, inside = chunk * BT + tl.arange(0, BT), columns < width
    u = load_steps(u_ptr + batch * u_b, s, columns, length, width, u_t, u_d, 0.0, BACK)
    delta = load_steps(delta_ptr + batch * delta_b, s, columns, length, width, delta_t, delta_d, 0.0, BACK)
    behind = tl.where(s + 1 < (chunk + 1) * BT, s + 1, length)
    after = load_steps(
        delta_ptr + batch * delta_b, behind, columns, length, width, delta_t, delta_d, 0.0, BACK
    )
    row = batch * length * width
    grad, slope = gated(
        grad_ptr + row, gate_ptr + batch * gate_b, s, columns, length, width, gate_t, gate_d, GATE, BACK
    )
    x, out = delta * u, tl.zeros((BT, BD), tl.float32)
    front = (batch * (chunks + 1) + chunk) * inner
    dx, ddelta = tl.zeros((BT, BD), tl.float32), tl.zeros((BT, BD), tl.float32)
    t = s
    if BACK:
        t = length - 1 - s
    sums = ((block * batches + batch) * length + t) * inner
    for n in range(inner):
        rate = tl.load(rate_ptr + n * width + columns, mask=inside, other=0.0)
        read_in = load_column(in_ptr + batch * in_b + n * in_n, s, length, in_t, BACK)
        read_out = load_column(read_ptr + batch * read_b + n * read_n, s, length, read_t, BACK)
        start = tl.load(starts_ptr + (front + n) * width + columns, mask=inside, other=0.0)
        drive = x * read_in[:, None]
        factor, states = tl.associative_scan((tl.exp(delta * rate[None, :]), drive), 0, chain)
        states += factor * start[None, :]
        out += states * read_out[:, None]
        tl.store(dread_ptr + sums + n, tl.sum(states * grad, 1), mask=s < length)
        end = tl.load(arriving_ptr + (front + inner + n) * width + columns, mask=inside, other=0.0)
        factor, dstates = tl.associative_scan(
            (tl.exp(after * rate[None, :]), grad * read_out[:, None]), 0, chain, reverse=True
        )
        dstates += factor * end[None, :]
        dx += dstates * read_in[:, None]
        tl.store(din_ptr + sums + n, tl.sum(dstates * x, 1), mask=s < length)
        kept = dstates * (states - drive)
        ddelta += kept * rate[None, :]
        place = ((batch * chunks + chunk) * inner + n) * width + columns
        tl.store(drate_ptr + place, tl.sum(kept * delta, 0), mask=inside)
    du = dx * delta
    if SKIP:
        skip = tl.load(skip_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        du += grad * skip[None, :]
        out += u * skip[None, :]
        tl.store(dskip_ptr + (batch * chunks + chunk) * width + columns, tl.sum(grad * u, 0), mask=inside)
    if GATE:
        store_steps(dgate_ptr + row, s, columns, length, width, slope * out, BACK)
    store_steps(du_ptr + row, s, columns, length, width, du, BACK)
    store_steps(ddelta_ptr + row, s, columns, length, width, ddelta + dx * u, BACK)
