"""The arithmetic of the CPU backend: many small attentions at a time, in buffers that stay in the cache.

One block of rows is a few hundred problems of a few dozen fields: matrix products over all of them at once,
and between the products passes over logits that the cache still holds. Logits are powers of two, which
processors raise faster than powers of e. Matrix products of float32 are slow where the number of columns is
not a multiple of four, so keys and values get rows of zeros and logits columns of -inf. bfloat16 and float16
are multiplied as they are; everything between two products is float32.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

LOG2E = math.log2(math.e)

_BLOCK_BYTES = 1_000_000
"""Size of a block's logits as operands; the second-level cache holds a few of these."""

_HUGE = 1 << 22
"""Bytes from which memory is asked for in huge pages."""


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised CPU memory, where the system offers it in huge pages.

    Results of this size are new memory in every step, and to get it in pages of 4 KB costs as much as to
    compute it. NumPy asks for huge pages (``madvise``), torch does not.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _HUGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    line = 64  # bytes; torch's own memory begins at a cache line too
    memory = torch.from_numpy(np.empty(size + line, np.uint8))
    start = -memory.data_ptr() % line
    return memory[start : start + size].view(dtype).view(shape)


def work_type(dtype: torch.dtype) -> torch.dtype:
    """The precision between two products."""
    return torch.promote_types(dtype, torch.float32)


def columns(fields: int, dtype: torch.dtype) -> int:
    """Columns that the logits of a field are given: see the module's text."""
    return fields if dtype.itemsize < 4 else -(-fields // 4) * 4


def blocks(rows: int, heads: int, fields: int, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of rows, as many in each as the cache holds logits for."""
    step = max(1, _BLOCK_BYTES // max(1, heads * fields * fields * dtype.itemsize))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


class Buffers:
    """Memory that the blocks of one call share, and the calls after it: see :func:`borrow`.

    Args:
        rows: rows of the largest block.
        heads, fields: sizes of a row.
        dtype: of the operands.
    """

    def __init__(self, rows: int, heads: int, fields: int, dtype: torch.dtype) -> None:
        self.rows, self.heads, self.fields, self.dtype = rows, heads, fields, dtype
        self.width = columns(fields, dtype)
        self.exact = work_type(dtype) == dtype
        self._made: dict[tuple[object, ...], Tensor] = {}

    def take(self, name: str, rows: int, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """(rows, ...) under a name; zero when it is first made."""
        dtype = dtype or self.dtype
        key = (name, dtype, *shape)
        if key not in self._made:
            self._made[key] = torch.zeros(self.rows, *shape, dtype=dtype, device="cpu")
        return self._made[key][:rows]

    def logits(self, name: str, problems: int, *, exact: bool = True) -> Tensor:
        """(problems, F, width) in the precision between products, or in that of the operands."""
        shape = (self.heads, self.fields, self.width)
        dtype = work_type(self.dtype) if exact else self.dtype
        return self.take(name, problems // self.heads, *shape, dtype=dtype).flatten(0, 1)

    def operand(self, name: str, x: Tensor, *, fill: bool = False) -> Tensor:
        """(R, H, F, D) as one contiguous problem after the other, (R * H, F or width, D).

        With ``fill`` rows of zeros are added up to the width.
        """
        height = self.width if fill else self.fields
        if height == self.fields and x.is_contiguous():
            return x.flatten(0, 1)
        made = self.take(name, len(x), self.heads, height, x.shape[3])
        made[:, :, : self.fields] = x
        return made.flatten(0, 1)


_borrowed = threading.local()


def borrow(rows: int, heads: int, fields: int, dtype: torch.dtype) -> Buffers:
    """Buffers for blocks of up to this many rows, the same ones in later calls of this thread.

    A layer that trains on small blocks is called thousands of times; memory that goes back to the system
    after each costs as much as the products. At most four sizes of problem are kept, some 10 MB each.
    """
    kept: dict[tuple[object, ...], Buffers] = _borrowed.__dict__.setdefault("buffers", {})
    key = (heads, fields, dtype)
    found = kept.pop(key, None)
    if found is None or found.rows < rows:
        found = Buffers(rows, heads, fields, dtype)
    while len(kept) > 3:
        del kept[next(iter(kept))]
    kept[key] = found
    return found


def logits(q: Tensor, k: Tensor, scale: float, buffers: Buffers) -> Tensor:
    """``scale * q k^T`` in the precision between products, (G, F, width), -inf in the columns that fill."""
    made = buffers.logits("s", len(q))
    if buffers.exact:
        torch.baddbmm(made, q, k.mT, beta=0, alpha=scale, out=made)
        if buffers.width > buffers.fields:
            made[:, :, buffers.fields :] = -torch.inf
        return made
    low = buffers.logits("s", len(q), exact=False)
    torch.bmm(q, k.mT, out=low)
    return made.copy_(low).mul_(scale)


def normalise(binary: Tensor) -> Tensor:
    """Softmax of binary logits, in place; returns the binary logarithm of its denominators, (G, F, 1)."""
    top = binary.amax(-1, keepdim=True)
    torch.exp2(binary.sub_(top), out=binary)
    total = torch.mm(binary.flatten(0, 1), binary.new_ones(binary.shape[2], 1)).view_as(top)
    binary.mul_(total.reciprocal())
    return top.add_(total.log2_())


def as_operand(weights: Tensor, name: str, buffers: Buffers) -> Tensor:
    """What lies in the precision between products, in that of the operands."""
    if buffers.exact:
        return weights
    return buffers.logits(name, len(weights), exact=False).copy_(weights)


def backward_logits(weights: Tensor, grad: Tensor, v: Tensor, scale: float, buffers: Buffers) -> Tensor:
    """Gradient of ``q k^T``, (G, F, width) in the precision of the operands.

    Args:
        weights: softmax of the logits, in the precision between products.
        grad: gradient of the attention's output, (G, F, Dv).
        v: (G, width, Dv).
        scale: factor of the products.
        buffers: memory.
    """
    low = buffers.logits("dp", len(grad), exact=False)
    torch.bmm(grad, v.mT, out=low)
    given = low if buffers.exact else buffers.logits("dp", len(grad)).copy_(low)
    made = buffers.logits("ds", len(grad))
    torch._softmax_backward_data(given, weights, -1, weights.dtype, grad_input=made)
    made.mul_(scale)
    return made if buffers.exact else low.copy_(made)
