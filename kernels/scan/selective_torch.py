"""The selective scan in plain torch, piece by piece: all states of one piece exist at a time.

Within a piece, positions stand in ``groups`` that step together, so that small layers take few calls; a piece
is (steps, B, groups, D), and its states (steps, B, groups, D, N), where one step of all groups is one block
of memory. A first walk over the steps finds what every group adds to the state in front of it; then the state
is carried from group to group, and a second walk fills in all states. Wide layers have one group and one
walk.

The gradient walks backwards: with ``g`` the gradient of ``y``, that of the states is ``G[t] = C[t] g[t] + a[t
+ 1] G[t + 1]`` with ``a = exp(delta A)``; then ``d(delta u) = B G``, ``dB = delta u G``, ``dC = g h``, and
``a h[t - 1] G`` gives the gradients of delta (times A) and A (times delta).
"""

from __future__ import annotations

from math import e, isqrt, log2
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .selective import Inputs, register, state_dtype

_LOG2_E = log2(e)
"""Powers of 2 are three times as fast as powers of e in torch's vector code."""
_PIECE = 1 << 18
"""How many states a piece holds at most, so that its few tensors stay in a core's cache."""
_STEP = 1 << 12
"""From how many states on a step is worth a call of its own; smaller steps share calls of four times this."""


class _Cut(NamedTuple):
    """Pieces of a sequence, each of so many groups of so many steps."""

    pieces: int
    groups: int
    steps: int

    @property
    def length(self) -> int:
        return self.groups * self.steps


def cut(batch: int, length: int, width: int, inner: int) -> _Cut:
    """How a sequence is cut: pieces of at least N positions, so that kept states are no more than inputs."""
    each = batch * width * inner
    longest = max(inner, 16, _PIECE // each)
    pieces = -(-length // longest)
    piece = -(-length // pieces)
    if each >= _STEP:
        return _Cut(pieces, 1, piece)
    groups = max(1, min(isqrt(piece // 2), 4 * _STEP // each))
    steps = -(-piece // groups)  # rounding up may leave nothing for the last pieces
    return _Cut(-(-length // (groups * steps)), groups, steps)


class _Pieces:
    """Reads and writes (B, T, X) one piece at a time, in working order and in the dtype of computation."""

    def __init__(self, given: Inputs, reverse: bool) -> None:
        self.batch, self.length, self.width = given.u.shape
        self.cut = cut(self.batch, self.length, self.width, given.decay.shape[1])
        self.dtype, self.reverse = state_dtype(given.u), reverse

    def _span(self, piece: int) -> slice:
        low, high = piece * self.cut.length, min((piece + 1) * self.cut.length, self.length)
        return slice(self.length - high, self.length - low) if self.reverse else slice(low, high)

    def read(self, x: Tensor, piece: int) -> Tensor:
        """(steps, B, groups, X), zeros beyond the end."""
        part = x[:, self._span(piece)].to(self.dtype)
        part = part.flip(1) if self.reverse else part
        part = F.pad(part, (0, 0, 0, self.cut.length - part.shape[1]))
        return part.unflatten(1, (self.cut.groups, self.cut.steps)).permute(2, 0, 1, 3).contiguous()

    def write(self, x: Tensor, piece: int, part: Tensor) -> None:
        """The inverse of :meth:`read`."""
        span = self._span(piece)
        flat = part.permute(1, 2, 0, 3).flatten(1, 2)[:, : span.stop - span.start]
        x[:, span] = flat.flip(1) if self.reverse else flat


class _Piece(NamedTuple):
    """What forward and backward compute of a piece: inputs, ``exp(delta A)`` and the states."""

    u: Tensor
    delta: Tensor
    read_in: Tensor
    read_out: Tensor
    rate: Tensor
    states: Tensor
    through: Tensor | None
    """exp(delta A) multiplied over every group, where there are several."""


def _compute(walk: _Pieces, given: Inputs, scaled: Tensor, piece: int, start: Tensor) -> _Piece:
    u, delta, b, c = (walk.read(one, piece) for one in given[:2] + given[3:5])
    rate = (delta.unsqueeze(-1) * scaled).exp2_()
    states = (delta * u).unsqueeze(-1) * b.unsqueeze(-2)
    through = (delta.sum(0).unsqueeze(-1) * scaled).exp2_() if walk.cut.groups > 1 else None
    _carry_on(rate, states, through, start)
    return _Piece(u, delta, b, c, rate, states, through)


def _carry_on(rate: Tensor, states: Tensor, through: Tensor | None, start: Tensor) -> None:
    """Turn what enters at every step into states, in place."""
    front = start.unsqueeze(1)
    if through is not None:
        end = states[0]
        for t in range(1, len(states)):
            end = torch.addcmul(states[t], rate[t], end)
        fronts = [start]
        for group in range(end.shape[1] - 1):
            fronts.append(torch.addcmul(end[:, group], through[:, group], fronts[-1]))
        front = torch.stack(fronts, 1)
    for t in range(len(states)):
        front = states[t].addcmul_(rate[t], front)


def _carry_back(rate: Tensor, grads: Tensor, through: Tensor | None, last: Tensor) -> Tensor:
    """The same for gradients, from what arrives behind the piece; returns what leaves in front of it."""
    behind = last.unsqueeze(1)
    if through is not None:
        front = grads[-1] * rate[-1]
        for t in range(len(grads) - 2, -1, -1):
            front = (front + grads[t]).mul_(rate[t])
        arriving = [last]
        for group in range(front.shape[1] - 1, 0, -1):
            arriving.append(torch.addcmul(front[:, group], through[:, group], arriving[-1]))
        behind = torch.stack(arriving[::-1], 1)
    grads[-1] += behind
    for t in range(len(grads) - 2, -1, -1):
        grads[t].addcmul_(rate[t + 1], grads[t + 1])
    return rate[0, :, 0] * grads[0, :, 0]


def _total(x: Tensor, y: Tensor) -> Tensor:
    """``(x * y).sum(-1)``, adding up through a product of matrices, which is faster for few terms."""
    return (x * y) @ torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)


def _output(made: _Piece, skip: Tensor | None) -> Tensor:
    """What a piece gives, in front of the gate."""
    y = _total(made.states, made.read_out.unsqueeze(-2))
    return y if skip is None else y.addcmul_(made.u, skip)


def _forward(given: Inputs, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    walk = _Pieces(given, reverse)
    u, decay = given.u, given.decay.to(walk.dtype)
    out = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    starts = torch.empty(kept(u, decay), dtype=walk.dtype, device=u.device)
    here = torch.zeros_like(starts[:, 0]) if given.state is None else given.state.to(walk.dtype)
    for piece in range(walk.cut.pieces):
        starts[:, piece] = here
        made = _compute(walk, given, decay * _LOG2_E, piece, here)
        y = _output(made, None if given.skip is None else given.skip.to(walk.dtype))
        if given.gate is not None:
            y *= F.silu(walk.read(given.gate, piece))
        walk.write(out, piece, y)
        here = made.states[-1, :, -1]
    return out, here.clone(memory_format=torch.contiguous_format), starts


def kept(u: Tensor, decay: Tensor) -> tuple[int, ...]:
    """Shape of the states in front of all pieces."""
    return u.shape[0], cut(u.shape[0], u.shape[1], *decay.shape).pieces, *decay.shape


def _fresh(x: Tensor) -> Tensor:
    """Contiguous memory for a gradient."""
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _backward(
    grad: Tensor, grad_final: Tensor, given: Inputs, starts: Tensor, reverse: bool
) -> tuple[Tensor | None, ...]:
    walk = _Pieces(given, reverse)
    decay = given.decay.to(walk.dtype)
    skip = None if given.skip is None else given.skip.to(walk.dtype)
    du, ddelta, db, dc = (_fresh(one) for one in (*given[:2], *given[3:5]))
    dgate = None if given.gate is None else _fresh(given.gate)
    ddecay, dskip = torch.zeros_like(decay), decay.new_zeros(len(decay))
    last = grad_final
    for piece in range(walk.cut.pieces - 1, -1, -1):
        start = starts[:, piece]
        made = _compute(walk, given, decay * _LOG2_E, piece, start)
        g = walk.read(grad, piece)
        if given.gate is not None and dgate is not None:
            z = walk.read(given.gate, piece)
            walk.write(dgate, piece, torch.ops.aten.silu_backward(g * _output(made, skip), z))
            g = g * F.silu(z)
        walk.write(dc, piece, (g.unsqueeze(-2) @ made.states).squeeze(-2))
        grads = g.unsqueeze(-1) * made.read_out.unsqueeze(-2)
        last = _carry_back(made.rate, grads, made.through, last)
        walk.write(db, piece, ((made.delta * made.u).unsqueeze(-2) @ grads).squeeze(-2))
        dx = _total(grads, made.read_in.unsqueeze(-2))
        through = _kept_part(made, grads, start)
        walk.write(ddelta, piece, (dx * made.u).add_(_total(through, decay)))
        ddecay += through.mul_(made.delta.unsqueeze(-1)).sum((0, 1, 2))
        dx *= made.delta
        if skip is not None:
            dx.addcmul_(g, skip)
            dskip += (g * made.u).sum((0, 1, 2))
        walk.write(du, piece, dx)
    return du, ddelta, ddecay, db, dc, dskip, dgate, last


def _kept_part(made: _Piece, grads: Tensor, start: Tensor) -> Tensor:
    """``exp(delta A) h[t - 1] G`` in the memory of the first factor."""
    weights = made.rate.mul_(grads)
    weights[1:] *= made.states[:-1]
    weights[0, :, 1:] *= made.states[-1, :, :-1]
    weights[0, :, 0] *= start
    return weights


selective_scan = register("selective_scan", _forward, _backward, kept)
