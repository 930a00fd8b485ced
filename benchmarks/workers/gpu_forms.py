"""What benchmarks/kernels_gpu.py compares: each case's inputs, and the functions that compute it.

A form takes the case's tensors and returns the output; all forms of a case return the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import attention, linear_attention, scan
from graphrec.kernels.patterns import BlockLists, Causal, Neighborhood, Pattern, Window, Windows

Form = Callable[..., Tensor]
Maker = Callable[[torch.device], Form]
OURS, SDPA, FLEX, DENSE = "graphrec", "SDPA with a mask", "compiled FlexAttention", "SDPA over all pairs"
UNFOLDED, FLA, NATTEN = "SDPA on unfolded windows", "flash-linear-attention", "NATTEN"
GOAL = {FLA: 1.2}
MASK_LIMIT = 16_384
"""Lengths up to which a dense mask is tried."""


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        name: what is computed.
        sizes: shapes of the tensors, all of which get gradients.
        forms: contender to a function that makes its form for a device (masks and plans are made there).
        exact: makes the form that, in float32, the others are checked against.
        goals: contender to the most that our time may be of its time.
        prepare: turns drawn numbers into the tensors that forms take.
    """

    name: str
    sizes: tuple[tuple[int, ...], ...]
    forms: dict[str, Maker]
    exact: Maker
    goals: dict[str, float] = field(default_factory=dict)
    prepare: Callable[..., tuple[Tensor, ...]] = lambda *given: given

    def inputs(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Leaves, the same numbers for every form."""
        generator = torch.Generator().manual_seed(0)
        drawn = self.prepare(*(torch.randn(size, generator=generator) for size in self.sizes))
        return [one.to(device, dtype).requires_grad_() for one in drawn]


def ours(pattern: Pattern, backend: str | None = None) -> Maker:
    """graphrec's attention."""
    return lambda device: lambda q, k, v: attention(q, k, v, pattern, backend=backend)


def listed(index: Tensor, block: int, backend: str | None = None) -> Maker:
    """graphrec's attention over block lists, which lie on the device."""

    def make(device: torch.device) -> Form:
        pattern = BlockLists(index.to(device), block)
        return lambda q, k, v: attention(q, k, v, pattern, backend=backend)

    return make


def linear(backend: str | None = None) -> Maker:
    """graphrec's causal linear attention."""
    return lambda device: lambda q, k, v: linear_attention(q, k, v, backend=backend)


def recurrence(backend: str | None = None) -> Maker:
    """graphrec's scan, of the logarithm of the decay."""
    return lambda device: lambda log_decay, x: scan(log_decay.exp(), x, backend=backend)


def masked(pattern: Pattern, length: int) -> Maker:
    """SDPA with a dense boolean mask."""

    def make(device: torch.device) -> Form:
        mask = pattern.mask(length, length, device=device)
        return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return make


def dense(causal: bool) -> Maker:
    """SDPA over all pairs: no contender, but what a density is measured against."""
    return lambda device: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def flex(pattern: Pattern, length: int) -> Maker:
    """FlexAttention, compiled, with a block mask made beforehand from the pattern itself."""

    def make(device: torch.device) -> Form:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return pattern.visible(b, h, q, k, length, length)

        blocks = create_block_mask(visible, None, None, length, length, device=str(device))
        compiled = _compiled(flex_attention)
        return lambda q, k, v: compiled(q, k, v, block_mask=blocks)

    return make


def flex_blocks(index: Tensor, block: int, length: int) -> Maker:
    """FlexAttention with the block lists given as they are, all of them full blocks."""

    def make(device: torch.device) -> Form:
        from torch.nn.attention.flex_attention import BlockMask, flex_attention

        count = torch.full(index.shape[:3], index.shape[3], dtype=torch.int32, device=device)
        spare = length // block - index.shape[3]
        lists = F.pad(index, (0, spare)).to(device, torch.int32)
        none, nothing = torch.zeros_like(count), torch.zeros_like(lists)
        table = torch.zeros(*index.shape[:3], length // block, dtype=torch.bool)
        table = table.scatter(3, index, True).to(device)

        def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return table[0, h, q // block, k // block]  # compiled code skips it in full blocks

        blocks = BlockMask.from_kv_blocks(
            none, nothing, count, lists, BLOCK_SIZE=block, mask_mod=visible, seq_lengths=(length, length)
        )
        compiled = _compiled(flex_attention)
        return lambda q, k, v: compiled(q, k, v, block_mask=blocks)

    return make


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


def unfolded(grid: int, side: int) -> Maker:
    """Windows cut by reshaping, and fused attention in each."""

    def cut(x: Tensor) -> Tensor:
        batch, heads, _, dim = x.shape
        count = grid // side
        split = x.view(batch, heads, count, side, count, side, dim).permute(0, 2, 4, 1, 3, 5, 6)
        return split.reshape(batch * count**2, heads, side**2, dim)

    def join(x: Tensor, batch: int) -> Tensor:
        count = grid // side
        split = x.view(batch, count, count, x.shape[1], side, side, x.shape[3]).permute(0, 3, 1, 4, 2, 5, 6)
        return split.reshape(batch, x.shape[1], grid**2, x.shape[3])

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return join(F.scaled_dot_product_attention(cut(q), cut(k), cut(v)), q.shape[0])

    return lambda device: form


def natten(grid: int, kernel: int) -> Maker:
    """NATTEN, which has heads after the grid."""

    def make(device: torch.device) -> Form:
        from natten import na2d

        def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            split = (one.transpose(1, 2).unflatten(1, (grid, grid)) for one in (q, k, v))
            return na2d(*split, kernel_size=kernel).flatten(1, 2).transpose(1, 2)

        return form

    return make


def fla_linear(device: torch.device) -> Form:
    """flash-linear-attention's chunked form, which has heads after the sequence."""
    from fla.ops.linear_attn import chunk_linear_attn

    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        split = (one.transpose(1, 2) for one in (q, k, v))
        return chunk_linear_attn(*split, scale=1.0, normalize=False)[0].transpose(1, 2)

    return form


def fla_scan(device: torch.device) -> Form:
    """flash-linear-attention's recurrence of HGRN; it takes the logarithm of the decay."""
    from fla.ops.hgrn import chunk_hgrn

    return lambda log_decay, x: chunk_hgrn(x, log_decay)[0]


def installed(forms: dict[str, Any]) -> dict[str, Any]:
    """Forms whose package is here."""
    packages = {FLA: "fla", NATTEN: "natten"}
    return {name: form for name, form in forms.items() if find_spec(packages.get(name, "torch"))}


def _softmax_case(
    name: str,
    pattern: Pattern,
    size: tuple[int, int, int, int],
    more: dict[str, Any],
    goals: dict[str, float],
) -> Case:
    length = size[2]
    forms = {OURS: ours(pattern), FLEX: flex(pattern, length), **more}
    if length <= MASK_LIMIT and SDPA not in more:
        forms[SDPA] = masked(pattern, length)
    return Case(name, (size,) * 3, installed(forms), ours(pattern, "torch"), {FLEX: 1.0, **goals})


def image_cases(batch: int, heads: int, dim: int) -> Iterator[Case]:
    """Windows and neighborhoods of Swin's and NAT's first stage."""
    size = batch, heads, 56 * 56, dim
    windows = {UNFOLDED: unfolded(56, 7)}
    yield _softmax_case("windows 7 at 56x56", Windows((56, 56), 7), size, windows, {UNFOLDED: 0.5})
    for kernel in (7, 13):
        pattern, more = Neighborhood((56, 56), kernel), {NATTEN: natten(56, kernel)}
        yield _softmax_case(f"neighborhood {kernel} at 56x56", pattern, size, more, {SDPA: 0.5})


def sequence_cases(heads: int, dim: int) -> Iterator[Case]:
    """A causal window of 1,024 at growing lengths, and block lists of three densities."""
    for length in (4096, 8192, 16384, 32768, 65536):
        pattern = Window(1023, 0) & Causal()
        more = {DENSE: dense(True)}
        share = (1024 * length - 1024 * 1023 / 2) / (length * (length + 1) / 2)
        name = f"causal window 1,024 at {length:,}"
        yield _softmax_case(name, pattern, (1, heads, length, dim), more, {DENSE: 1.25 * share})
    for part in (4, 8, 16):
        yield block_case(8192, 128, part, heads, dim)


def block_case(length: int, block: int, part: int, heads: int, dim: int) -> Case:
    """Every block of queries sees one ``part``-th of the blocks, drawn per head."""
    count = length // block
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(1, heads, count, count, generator=generator).argsort(-1)
    index = order[..., : count // part].sort(-1).values
    forms = {OURS: listed(index, block), FLEX: flex_blocks(index, block, length), DENSE: dense(False)}
    size, goals = (1, heads, length, dim), {FLEX: 1.0, DENSE: 1.25 / part}
    return Case(
        f"block lists at 1/{part} of {length:,}", (size,) * 3, forms, listed(index, block, "torch"), goals
    )


def linear_cases(heads: int, dim: int) -> Iterator[Case]:
    """Causal linear attention and scans at growing lengths."""
    for length in (2048, 4096, 8192, 16384, 32768, 65536):
        forms, size = installed({OURS: linear(), FLA: fla_linear}), (1, heads, length, dim)
        yield Case(f"linear attention at {length:,}", (size,) * 3, forms, linear("torch"), GOAL, _positive)
    for length in (2048, 4096, 8192, 16384, 32768, 65536):
        forms, wide = installed({OURS: recurrence(), FLA: fla_scan}), (4, length, heads * dim)
        yield Case(f"scan at {length:,}", (wide,) * 2, forms, recurrence("torch"), GOAL, _decaying)


def _positive(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Feature maps as in the paper, scaled so that sums over the sequence stay near 1."""
    return (F.elu(q) + 1) / q.shape[-1], (F.elu(k) + 1) / q.shape[2] ** 0.5, v


def _decaying(log_decay: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    return F.logsigmoid(log_decay + 2), x


@lru_cache(maxsize=1)
def cases(batch: int = 16, heads: int = 8, dim: int = 64, window_dim: int = 32) -> tuple[Case, ...]:
    """All cases."""
    return (*image_cases(batch, heads, window_dim), *sequence_cases(heads, dim), *linear_cases(heads, dim))
