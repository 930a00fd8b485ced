"""Groups of queries against the keys that they see, a few heads at a time so that it all stays in cache.

One function gathers, attends and puts back: what is gathered lives only as long as its piece, and the
backward gathers it again and reuses the probabilities, the only large thing kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .core import as_given, plain_attention, probabilities, slopes, times_matrix, widened
from .gather import Gather
from .rows import repeated, take_rows

_PIECE = 1 << 17
"""Pairs per piece: half a megabyte of float32, which a core's second cache holds."""

Part = tuple[slice, slice]
"""A run of batch entries and a run of heads."""


class Rows(NamedTuple):
    """How to cut one side into groups: int64 (N, m) rows, -1 for none, and the way back.

    ``start`` and ``order`` say where each row went, see :func:`~graphrec.kernels.attention.rows.uses_of`;
    ``once`` whether every row went to one place, ``full`` whether there is no -1.
    """

    places: Tensor
    start: Tensor
    order: Tensor
    once: bool
    full: bool


def sides(found: Gather) -> tuple[Rows, Rows]:
    """How to cut queries and keys, where all heads and batch entries see the same keys."""
    assert found.q_start is not None
    assert found.q_order is not None
    assert found.k_start is not None
    assert found.k_order is not None
    queries = Rows(
        found.q_index, found.q_start, found.q_order, True, found.q_order.numel() == found.q_index.numel()
    )
    return queries, Rows(found.k_index[0, 0], found.k_start, found.k_order, found.k_once, True)


def parts(batch: int, heads: int, pairs: int, folded: bool) -> Iterator[Part]:
    """Pieces of some :data:`_PIECE` pairs: heads of one batch entry, or several whole entries.

    Where nothing is gathered, eight times as many: the calls cost more than the cache saves.
    """
    many = max(1, (_PIECE << 3 if folded else _PIECE) // max(pairs, 1))
    if many >= heads:
        step = max(1, many // heads)
        yield from ((slice(b, min(b + step, batch)), slice(0, heads)) for b in range(0, batch, step))
        return
    for b in range(batch):
        yield from ((slice(b, b + 1), slice(h, min(h + many, heads))) for h in range(0, heads, many))


def _run(x: Tensor, part: Part) -> Tensor:
    """The rows of a piece of (B, H, L, D), one head after another; a view where ``x`` is contiguous."""
    if not x.is_contiguous():
        return x[part].reshape(-1, x.shape[-1])
    heads, length = x.shape[1:3]
    batch, many = (one.stop - one.start for one in part)
    first = part[0].start * heads + part[1].start
    return x.view(-1, x.shape[-1]).narrow(0, first * length, batch * many * length)


class _Gatherer:
    """Cuts pieces of (B, H, L, D) into (count * N, m, D) by row numbers, and sums such pieces back."""

    def __init__(self, rows: Rows, length: int) -> None:
        self.rows, self.length = rows, length
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def _places(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        if count not in self._made:
            rows = self.rows
            self._made[count] = (
                repeated(rows.places.clamp(min=0), count, self.length),
                repeated(rows.order, count, rows.places.numel()),
                repeated(rows.start, count, rows.order.shape[0]),
            )
        return self._made[count]

    def cut(self, x: Tensor, part: Part) -> Tensor:
        """The groups of a piece."""
        flat = _run(x, part)
        places = self._places(flat.shape[0] // max(self.length, 1))[0]
        return flat.index_select(0, places).view(-1, self.rows.places.shape[1], x.shape[-1])

    def cut_gradient(self, x: Tensor, part: Part) -> Tensor:
        """The groups of a piece, zero in the rows that fill a group up."""
        made = self.cut(x, part)
        if not self.rows.full:
            filling = (self.rows.places < 0).unsqueeze(-1)
            made.view(-1, *self.rows.places.shape, x.shape[-1]).masked_fill_(filling, 0)
        return made

    def paste(self, grouped: Tensor, into: Tensor, part: Part) -> None:
        """Write the sums of groups over each row to a piece."""
        piece = _run(into, part)
        flat = grouped.reshape(-1, into.shape[-1]).to(into.dtype)
        _, order, start = self._places(piece.shape[0] // max(self.length, 1))
        if self.rows.once:
            torch.index_select(flat, 0, order, out=piece)
        else:
            piece.copy_(torch.embedding_bag(flat, order, start, False, 0, False, None, False)[0])

    def product(self, one: Tensor, other: Tensor, into: Tensor, part: Part, factor: float = 1.0) -> None:
        """Write a factor times a product of groups, summed over each row."""
        made = one.new_empty(one.shape[0], one.shape[1], other.shape[2])
        self.paste(torch.baddbmm(made, one, other, beta=0, alpha=factor, out=made), into, part)


class _Viewer:
    """The same for rows that stand in their groups already: (B, H, N * m, D)."""

    def __init__(self, width: int) -> None:
        self.width = width

    def cut(self, x: Tensor, part: Part) -> Tensor:
        """The groups of a piece."""
        return x[part].reshape(-1, self.width, x.shape[-1])

    cut_gradient = cut

    def paste(self, grouped: Tensor, into: Tensor, part: Part) -> None:
        """Write groups to where they were cut from."""
        into[part].copy_(grouped.view(into[part].shape))

    def product(self, one: Tensor, other: Tensor, into: Tensor, part: Part, factor: float = 1.0) -> None:
        """Write a factor times a product of groups."""
        place = into[part].view(-1, self.width, into.shape[-1])
        made = place if one.dtype == into.dtype else one.new_empty(place.shape)
        torch.baddbmm(made, one, other, beta=0, alpha=factor, out=made)
        if made is not place:
            place.copy_(made)


def cutters(found: Gather, k_len: int) -> tuple[_Gatherer | _Viewer, _Gatherer | _Viewer]:
    """How to cut queries and keys; those of a folding are in their groups already."""
    if found.folding is not None:
        both = _Viewer(found.q_index.shape[1])
        return both, both
    queries, keys = sides(found)
    return _Gatherer(queries, found.inverse.shape[0]), _Gatherer(keys, k_len)


def _piece_of(pairs: Tensor | None, part: Part, size: tuple[int, ...]) -> Tensor | None:
    """The piece of a tensor broadcastable to (B, H, N, m, n), as (count * N, m, n)."""
    if pairs is None:
        return None
    batch, heads = (one.stop - one.start for one in part)
    b = part[0] if pairs.shape[0] > 1 else slice(None)
    h = part[1] if pairs.shape[1] > 1 else slice(None)
    return widened(pairs[b, h]).expand(batch, heads, *size).reshape(-1, *size[1:])


def _add_piece(total: Tensor, part: Part, grad: Tensor) -> None:
    """Add the gradient of a piece (count * N, m, n) to that of the whole, summing what was broadcast."""
    b = part[0] if total.shape[0] > 1 else slice(None)
    h = part[1] if total.shape[1] > 1 else slice(None)
    batch, heads = (one.stop - one.start for one in part)
    shaped = grad.view(batch, heads, -1, *grad.shape[1:])
    total[b, h] += shaped.sum_to_size(total[b, h].shape)


class GroupAttend(torch.autograd.Function):
    """Output (B, H, Lq, Dv) and log-sum-exp (B, H, Lq), empty unless asked for.

    ``addend`` and ``times`` broadcast to (B, H, N, m, n). k and v
    have as many heads as q. With a folding, all positions come and go in the order of their groups.
    """

    @staticmethod
    @as_given
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        addend: Tensor | None,
        times: Tensor | None,
        found: Gather,
        scale: float,
        need_lse: bool,
    ) -> tuple[Tensor, Tensor]:
        queries, keys = cutters(found, k.shape[2])
        size = (*found.q_index.shape, found.k_index.shape[3])
        batch, heads = q.shape[:2]
        work = torch.promote_types(q.dtype, torch.float32) if need_lse else q.dtype
        kept = q.new_empty(batch, heads, *size, dtype=work)
        out = q.new_empty(*q.shape[:3], v.shape[3])
        lse = q.new_empty((*q.shape[:3], 1) if need_lse else (0,), dtype=work)
        for part in parts(batch, heads, kept[0, 0].numel(), found.folding is not None):
            given, shown, values = (
                widened(one) for one in (queries.cut(q, part), keys.cut(k, part), keys.cut(v, part))
            )
            place = kept[part].view(-1, *size[1:])
            narrow = place.dtype != torch.promote_types(place.dtype, given.dtype)
            weights = given.new_empty(place.shape) if narrow else place
            high = probabilities(given, shown, _piece_of(addend, part, size), scale, need_lse, weights)
            if narrow:
                place.copy_(weights)
            if high is not None:
                queries.paste(high.unsqueeze(-1), lse, part)
            queries.product(
                times_matrix(weights, _piece_of(times, part, size), values.dtype), values, out, part
            )
        ctx.save_for_backward(q, k, v, addend, times, kept)
        ctx.found, ctx.scale, ctx.need_lse = found, scale, need_lse
        return out, lse.squeeze(-1) if need_lse else lse

    @staticmethod
    @as_given
    def backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
        q, k, v, addend, times, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, (q, k, v, addend, times), grad, grad_lse)
        wanted, size = ctx.needs_input_grad, tuple(kept.shape[2:])
        queries, keys = cutters(ctx.found, k.shape[2])
        dq, dk, dv = (torch.empty(one.shape, dtype=one.dtype, device=one.device) for one in (q, k, v))
        pairs = [
            torch.zeros(one.shape, dtype=kept.dtype, device=q.device) if one is not None and want else None
            for one, want in ((addend, wanted[3]), (times, wanted[4]))
        ]
        for part in parts(q.shape[0], q.shape[1], kept[0, 0].numel(), ctx.found.folding is not None):
            weights = widened(kept[part].view(-1, *size[1:]))
            given, values = widened(queries.cut_gradient(grad, part)), widened(keys.cut(v, part))
            factor = _piece_of(times, part, size)
            logit_grad = queries.cut_gradient(grad_lse.unsqueeze(-1), part) if ctx.need_lse else None
            ds, used, dtimes = slopes(weights, given, values, factor, logit_grad, pairs[1] is not None)
            keys.product(used.mT, given, dv, part)
            if pairs[0] is not None:
                _add_piece(pairs[0], part, ds)
            if pairs[1] is not None and dtimes is not None:
                _add_piece(pairs[1], part, dtimes)
            ds = ds.to(values.dtype)
            queries.product(ds, widened(keys.cut(k, part)), dq, part, ctx.scale)
            keys.product(ds.mT, widened(queries.cut(q, part)), dk, part, ctx.scale)
        found = [None if one is None else one.to(q.dtype) for one in (dq, dk, dv, *pairs)]
        return (*found, None, None, None)


def _differentiable(
    ctx: Any, inputs: tuple[Tensor | None, ...], grad: Tensor, grad_lse: Tensor
) -> tuple[Any, ...]:
    """The gradient as operations that autograd can follow, for a second derivative."""
    q, k, v, addend, times = inputs
    assert q is not None
    assert k is not None
    assert v is not None
    found: Gather = ctx.found
    if found.folding is None:
        index = found.q_index, found.k_index[0, 0], found.k_index[0, 0]
        cut = [take_rows(one, places, None) for one, places in zip((q, k, v), index, strict=True)]
    else:
        cut = [one.unflatten(2, found.q_index.shape) for one in (q, k, v)]
    out, lse = plain_attention(cut[0], cut[1], cut[2], addend, times, ctx.scale, ctx.need_lse)
    place = slice(None) if found.folding is not None else found.inverse
    outputs = [out.flatten(2, 3)[:, :, place]] + ([] if lse is None else [lse.flatten(2)[:, :, place]])
    wanted = [one for one in range(5) if ctx.needs_input_grad[one]]
    leaves = [one for one in (inputs[place] for place in wanted) if one is not None]
    made = torch.autograd.grad(outputs, leaves, [grad, grad_lse][: len(outputs)], create_graph=True)
    placed = dict(zip(wanted, made, strict=True))
    return (*(placed.get(one) for one in range(5)), None, None, None)
