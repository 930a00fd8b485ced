"""AutoInt's interacting layer on a CPU as torch operators, with few passes over its activations.

A block of rows is projected, attended and added up while it is in the cache. Each part of the projection
(queries, keys, values, residual) of a block lies in memory of its own, (groups of heads, rows, F, width of a
group): one batched product makes them all, and products read them, and write their gradients, where they lie.

Two measures suit the shapes to the matrix products of a processor (MKL, AVX2). One of fewer than 16 columns
takes as long as one of 16, or longer: narrow heads are multiplied in groups, of which each takes its own
columns.
And 4 n + 3 fields take longer than 4 n + 4: they are given one of zeros, which no other field sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..registering import operator
from .blocks import fresh, work_type

_relu_backward = torch.ops.aten.threshold_backward.grad_input

_BLOCK_FLOATS = 1_200_000
"""Numbers of a block's projections and attention weights together."""

_COLUMNS = 16
"""Columns from which a product of small matrices is not slower for having more."""


def apply(
    x: Tensor, weight: Tensor, bias: Tensor | None, heads: int, scale: float, residual: bool, rectify: bool
) -> Tensor:
    """(B, F, h d'); keeps what the backward reads only where a gradient is wanted."""
    keep = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (x, weight, bias))
    if keep and not torch.compiler.is_compiling():
        out: Tensor = _Eager.apply(x, weight, bias, heads, scale, residual, rectify)
        return out
    return interacting_layer(x, weight, bias, heads, scale, residual, rectify, keep)[0]


class _Sizes(NamedTuple):
    """How the projections and attention weights of a block of rows lie in memory."""

    parts: int
    groups: int
    """Of heads."""
    members: int
    """Heads in a group."""
    width: int
    """d' of a head."""
    fields: int
    padded: int
    """Fields with the one that may be added."""

    @classmethod
    def of(cls, fields: int, projected: int, heads: int, residual: bool) -> _Sizes:
        """Of F fields that are projected to 3 h d' or 4 h d' numbers."""
        parts = 3 + residual
        width = projected // (parts * heads)
        members = next(
            (one for one in range(1, heads) if heads % one == 0 and one * width >= _COLUMNS), heads
        )
        return cls(parts, heads // members, members, width, fields, fields + fields % 4 // 3)

    @property
    def heads(self) -> int:
        """h."""
        return self.groups * self.members

    @property
    def wide(self) -> int:
        """Columns of a group."""
        return self.members * self.width

    @property
    def row(self) -> tuple[int, int]:
        """Numbers of a row's projections and of its attention weights."""
        return self.padded * self.parts * self.heads * self.width, self.heads * self.padded**2

    def blocks(self, batch: int) -> Iterator[slice]:
        """Slices of the rows."""
        step = self.step(batch)
        return (slice(start, min(start + step, batch)) for start in range(0, batch, step))

    def step(self, batch: int) -> int:
        """Rows of a block."""
        return min(batch, max(1, _BLOCK_FLOATS // max(1, sum(self.row))))

    def projections(self, flat: Tensor) -> Tensor:
        """(rows, numbers) as (parts, groups, rows, F, width of a group)."""
        return flat.view(self.parts, self.groups, len(flat), self.padded, self.wide)

    def weights(self, flat: Tensor) -> Tensor:
        """(rows, numbers) as (h, rows, F, F)."""
        return flat.view(self.heads, len(flat), self.padded, self.padded)

    def split(self, weight: Tensor) -> Tensor:
        """(parts h d', d) as (parts * groups, width of a group, d)."""
        return weight.view(self.parts * self.groups, self.wide, -1)

    def each_head(self) -> Iterator[tuple[int, int, slice]]:
        """Number of a head, its group, and its columns in the group."""
        for head in range(self.heads):
            group, member = divmod(head, self.members)
            yield head, group, slice(member * self.width, (member + 1) * self.width)


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher, which costs a block of 64 rows a twentieth of its time."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        heads: int,
        scale: float,
        residual: bool,
        rectify: bool,
    ) -> Tensor:
        out, projected, kept = _forward(x, weight, bias, heads, scale, residual, rectify, keep=True)
        ctx.save_for_backward(x, weight, out, projected, kept)
        ctx.has_bias, ctx.settings = bias is not None, (heads, scale, residual, rectify)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = _backward(grad, *ctx.saved_tensors, *ctx.settings)
        return dx, dweight, dbias if ctx.has_bias else None, None, None, None, None


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (B, F, h d'), and with ``keep`` what the backward reads: projections and attention weights.

    Both are (B, numbers of a row), block after block as `_Sizes` says, the projections after ReLU.
    """
    batch, fields, _ = x.shape
    sizes = _Sizes.of(fields, len(weight), heads, residual)
    out = fresh((batch, fields, sizes.heads * sizes.width), x.dtype)
    projected, kept = (fresh((batch if keep else 0, many), x.dtype) for many in sizes.row)
    if out.numel() == 0:
        return out, projected, kept
    step = sizes.step(batch)
    spare = [x.new_empty(0 if keep else step, many) for many in sizes.row]
    logits, mixed = x.new_empty(step, sizes.padded, sizes.padded), x.new_empty(step, sizes.padded, sizes.wide)
    with torch.autocast("cpu", enabled=False):
        for rows in sizes.blocks(batch):
            many = rows.stop - rows.start
            flat = (projected[rows], kept[rows]) if keep else (spare[0][:many], spare[1][:many])
            block, weights = sizes.projections(flat[0]), sizes.weights(flat[1])
            _project(_padded(x[rows], sizes), sizes.split(weight), bias, block)
            if rectify:
                block.relu_()
            _attend(block, scale, sizes, weights, logits[:many], mixed[:many], out[rows])
    return out, projected, kept


def _padded(x: Tensor, sizes: _Sizes) -> Tensor:
    """(R, F, ...) with the field of zeros that is added."""
    return (
        torch.constant_pad_nd(x, (0, 0, 0, sizes.padded - sizes.fields)) if sizes.padded > sizes.fields else x
    )


def _project(x: Tensor, weight: Tensor, bias: Tensor | None, block: Tensor) -> None:
    """Write all parts of a block's projection, (parts, groups, R, F, width of a group)."""
    many, (rows, fields, wide) = len(weight), block.shape[2:]
    inputs = x.flatten(0, 1).expand(many, -1, -1)
    torch.bmm(inputs, weight.mT, out=block.view(many, rows * fields, wide))
    if bias is not None:
        block.view(many, rows, fields * wide).add_(bias.view(many, 1, wide).repeat(1, 1, fields))


def _attend(
    block: Tensor, scale: float, sizes: _Sizes, weights: Tensor, logits: Tensor, mixed: Tensor, out: Tensor
) -> None:
    """Write a block's attention weights (h, R, F, F) and output (R, F, h d').

    ``logits`` (R, F, F) and ``mixed`` (R, F, width of a group) are memory to work in.
    """
    fields = sizes.fields
    for head, group, columns in sizes.each_head():
        q, k, v = block[0, group], block[1, group], block[2, group]
        torch.baddbmm(logits, q[..., columns], k[..., columns].mT, beta=0, alpha=scale, out=logits)
        if sizes.padded > fields:
            logits[:, :, fields:] = -torch.inf
        torch.softmax(logits, -1, out=weights[head])
        torch.bmm(weights[head], v, out=mixed)
        made, target = mixed[:, :fields, columns], out.unflatten(2, (sizes.heads, -1))[:, :, head]
        if sizes.parts == 4:
            torch.add(made, block[3, group, :, :fields, columns], out=target)
        else:
            target.copy_(made)
    out.relu_()


interacting_layer = operator("graphrec::interacting_layer")(_forward)


@interacting_layer.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, fields, _ = x.shape
    sizes = _Sizes.of(fields, weight.shape[0], heads, residual)
    kept = [x.new_empty(batch if keep else 0, many) for many in sizes.row]
    return x.new_empty(batch, fields, weight.shape[0] // (3 + residual)), kept[0], kept[1]


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    projected: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias (made whether there is a bias or not)."""
    batch, fields, dim = x.shape
    sizes = _Sizes.of(fields, len(weight), heads, residual)
    split, dx = sizes.split(weight), fresh(x.shape, x.dtype)
    dweight = torch.zeros(split.shape, dtype=work_type(x.dtype), device="cpu")
    dbias = torch.zeros(split.shape[:2], dtype=dweight.dtype, device="cpu")
    if projected.numel() > 0:
        step = sizes.step(batch)
        spare, given = x.new_empty(step, sizes.row[0]), x.new_zeros(step, sizes.padded, out.shape[2])
        with torch.autocast("cpu", enabled=False):
            for rows in sizes.blocks(batch):
                many = rows.stop - rows.start
                block, made = sizes.projections(projected[rows]), sizes.projections(spare[:many])
                _relu_backward(grad[rows], out[rows], 0, grad_input=given[:many, :fields])
                _attend_backward(given[:many], block, sizes.weights(kept[rows]), scale, sizes, made)
                if rectify:
                    _relu_backward(made, block, 0, grad_input=made)
                flat = made.view(len(split), -1, sizes.wide)
                dx[rows] = _times(flat, split).view(many, sizes.padded, dim)[:, :fields]
                inputs = _padded(x[rows], sizes).flatten(0, 1).expand(len(split), -1, -1)
                dweight.add_(torch.bmm(flat.mT, inputs))
                dbias.add_(flat.sum(1))
    return dx, dweight.view(weight.shape).to(weight.dtype), dbias.flatten().to(weight.dtype)


def _times(made: Tensor, weight: Tensor) -> Tensor:
    """The gradient of what was projected: the sum over parts and groups, rounded once."""
    if made.dtype.itemsize < 4:
        return made.transpose(0, 1).flatten(1) @ weight.flatten(0, 1)
    out = made.new_empty(made.shape[1], weight.shape[2])
    return torch.addbmm(out, made, weight, beta=0, out=out)


def _attend_backward(
    grad: Tensor, block: Tensor, weights: Tensor, scale: float, sizes: _Sizes, made: Tensor
) -> None:
    """Write the gradient of a block's projections, as they are after ReLU.

    Args:
        grad: gradient of the sum that enters the last ReLU, (R, F, h d'), zero for an added field.
        block: projections (parts, groups, R, F, width of a group).
        weights: attention weights (h, R, F, F).
        scale: factor of the products.
        sizes: how these lie.
        made: what is written, as ``block``.
    """
    logits, dlogits = torch.empty_like(weights[0]), torch.empty_like(weights[0])
    whole = torch.empty_like(block[0, 0])

    def multiply(left: Tensor, right: Tensor, target: Tensor, columns: slice) -> None:
        if sizes.members == 1:
            torch.bmm(left, right, out=target)
        else:
            target[..., columns] = torch.bmm(left, right, out=whole)[..., columns]

    for head, group, columns in sizes.each_head():
        q, k, v = block[0, group], block[1, group], block[2, group]
        dq, dk, dv = made[0, group], made[1, group], made[2, group]
        given = grad[..., group * sizes.wide : (group + 1) * sizes.wide]
        multiply(weights[head].mT, given, dv, columns)
        torch.baddbmm(dlogits, given[..., columns], v[..., columns].mT, beta=0, alpha=scale, out=dlogits)
        torch._softmax_backward_data(dlogits, weights[head], -1, weights.dtype, grad_input=logits)
        multiply(logits, k, dq, columns)
        multiply(logits.mT, q, dk, columns)
        if sizes.parts == 4 and columns.start == 0:
            made[3, group].copy_(given)


interacting_layer_backward = operator("graphrec::interacting_layer_backward")(_backward)


@interacting_layer_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    projected: Tensor,
    kept: Tensor,
    heads: int,
    scale: float,
    residual: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dweight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    return dx, dweight, weight.new_empty(weight.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, *ctx.settings, _ = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, weight, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    dx, dweight, dbias = interacting_layer_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return dx, dweight, dbias if ctx.has_bias else None, None, None, None, None, None


interacting_layer.register_autograd(_differentiate, setup_context=_setup)
