"""What ``python -m graphrec.kernels.tune`` times for each operator, and which settings it tries.

``WORKLOADS`` is the table: an operator is tuned by adding a line to it. Settings that an architecture's
registers or shared memory cannot hold are left out before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from .attention import attention, gather_attention
from .conv import dynamic_conv2d
from .graph import CSR, spmm
from .interaction import field_attention
from .linear import gated_linear_attention, linear_attention
from .patterns import Causal, Neighborhood, Pattern, Windows
from .scan import scan, selective_scan

Settings = dict[str, int]
Step = Callable[[str], list[Tensor]]
"""Runs an operator forward and backward on a backend and returns the output and all gradients."""

SHARED = {"sm_80": 163, "sm_86": 99, "sm_87": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}
"""KB of shared memory that a program may use; 99 where nothing is listed."""

REGISTERS = 160
"""Of a thread's 255, those that sums and logits may take; pointers and operands need the rest."""


@dataclass(frozen=True)
class Workload:
    """How to tune one operator.

    Attributes:
        choices: what each setting may be.
        fits: whether settings fit an architecture's shared memory (KB) at a dimension and itemsize.
        steps: representative calls for a dimension, dtype and device.
        dims: the dimensions that get a row.
        typed: whether rows are told apart by dtype.
    """

    choices: Mapping[str, tuple[int, ...]]
    fits: Callable[[Settings, int, int, int], bool]
    steps: Callable[[int, torch.dtype, torch.device], list[Step]]
    dims: Sequence[int] = (16, 32, 64, 128)
    typed: bool = True

    def candidates(self, dim: int, dtype: torch.dtype, architecture: str) -> Iterator[Settings]:
        """Settings that fit, smallest first."""
        limit = SHARED.get(architecture, 99)
        for values in product(*self.choices.values()):
            settings = dict(zip(self.choices, values, strict=True))
            if self.fits(settings, dim, dtype.itemsize, limit):
                yield settings


def training_step(call: Callable[[str], Tensor], leaves: Sequence[Tensor]) -> Step:
    """A call and the gradients of its output's sum of squares."""

    def step(backend: str) -> list[Tensor]:
        out = call(backend)
        return [out.detach(), *torch.autograd.grad(out, leaves, out.detach())]

    return step


def _attention_fits(settings: Settings, dim: int, itemsize: int, limit: int) -> bool:
    bm, bn = settings["bm"], settings["bn"]
    registers = (bm * bn + 2 * max(bm, bn) * dim) / (32 * settings["warps"])
    shared = (bm + 2 * settings["stages"] * bn) * dim * itemsize / 1024
    enough_work = bm * bn >= 256 * settings["warps"]
    return registers <= REGISTERS and shared <= limit and enough_work


def _attention_steps(dim: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    """Windows, a neighborhood and a causal sequence: few and many tiles, partial and full ones."""
    shapes: list[tuple[Pattern, int, int, int]] = [
        (Windows((56, 56), 7, shift=3), 16, 4, 56 * 56),
        (Neighborhood((56, 56), 7), 4, 4, 56 * 56),
        (Causal(), 2, 8, 4096),
    ]
    return [_attention_step(*shape, dim, dtype, device) for shape in shapes]


def _drawn(dtype: torch.dtype, device: torch.device, *sizes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(size, dtype=dtype, device=device, requires_grad=True) for size in sizes]


def _attention_step(
    pattern: Pattern, batch: int, heads: int, length: int, dim: int, dtype: torch.dtype, device: torch.device
) -> Step:
    q, k, v = _drawn(dtype, device, *[(batch, heads, length, dim)] * 3)
    return training_step(lambda backend: attention(q, k, v, pattern, backend=backend), (q, k, v))


def _gather_steps(dim: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    q, k, v = _drawn(dtype, device, *[(2, 4, 2048, dim)] * 3)
    index = torch.randint(2048, (2, 1, 2048, 32), device=device)
    return [training_step(lambda backend: gather_attention(q, k, v, index, backend=backend), (q, k, v))]


def _field_steps(fields: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    q, k, v = _drawn(dtype, device, *[(2048, 2, fields, 32)] * 3)
    return [training_step(lambda backend: field_attention(q, k, v, backend=backend), (q, k, v))]


def _linear_steps(dim: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    q, k, v = _drawn(dtype, device, *[(1, 4, 2048, dim)] * 3)

    def step(causal: bool) -> Step:
        return training_step(
            lambda backend: linear_attention(q / 64, k, v, causal=causal, backend=backend), (q, k, v)
        )

    return [step(True), step(False)]


def _gated_steps(by_dimension: bool) -> Callable[[int, torch.dtype, torch.device], list[Step]]:
    def steps(dim: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
        q, k, v = _drawn(dtype, device, *[(1, 4, 2048, dim)] * 3)
        size = (1, 4, 2048, dim) if by_dimension else (1, 4, 2048)
        decay = (-torch.rand(size, device=device) / 16).requires_grad_()
        leaves = (q, k, v, decay)
        return [
            training_step(lambda backend: gated_linear_attention(q, k, v, decay, backend=backend), leaves)
        ]

    return steps


def _scan_steps(width: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    a = torch.rand(2, 2048, width, dtype=dtype, device=device, requires_grad=True)
    (b,) = _drawn(dtype, device, (2, 2048, width))
    return [training_step(lambda backend: scan(a, b, backend=backend), (a, b))]


def _selective_steps(width: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    u, read_in, read_out = _drawn(dtype, device, (1, 1024, width), (1, 1024, 16), (1, 1024, 16))
    delta = torch.rand(1, 1024, width, dtype=dtype, device=device, requires_grad=True)
    decay = (-1 - torch.rand(width, 16, dtype=dtype, device=device)).requires_grad_()
    leaves = (u, delta, decay, read_in, read_out)
    return [training_step(lambda backend: selective_scan(*leaves, backend=backend), leaves)]


def _graph_steps(dim: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    nodes, edges = 5_000, 80_000
    source, target = torch.randint(nodes, (2, edges), device=device)
    graph = CSR.from_edges(source, target, nodes, nodes)[0]
    x, weight = _drawn(dtype, device, (nodes, dim), (edges,))
    return [training_step(lambda backend: spmm(graph, x, weight, backend=backend), (x, weight))]


def _dynamic_steps(members: int, dtype: torch.dtype, device: torch.device) -> list[Step]:
    x, weight = _drawn(dtype, device, (2, 4 * members, 28, 28), (2, 4, 49, 28, 28))
    return [
        training_step(lambda backend: dynamic_conv2d(x, weight, kernel_size=7, backend=backend), (x, weight))
    ]


def _limited(most: int, *tile: str) -> Callable[[Settings, int, int, int], bool]:
    """Tiles of so many numbers a thread at most; nothing is kept in shared memory but what a sum needs."""

    def fits(settings: Settings, dim: int, itemsize: int, limit: int) -> bool:
        return (
            2 * 32 * settings["warps"] <= prod(settings[one] for one in tile) <= most * 32 * settings["warps"]
        )

    return fits


def _linear_fits(settings: Settings, dim: int, itemsize: int, limit: int) -> bool:
    """A state and a tile of products in registers; operands of two stages in shared memory."""
    chunk, bk, bv = (settings[name] for name in ("chunk", "bk", "bv"))
    registers = (bk * bv + chunk * max(chunk, bv)) / (32 * settings["warps"])
    shared = 2 * chunk * (2 * bk + bv) * itemsize / 1024
    return registers <= REGISTERS and shared <= limit and max(bk, bv) <= max(dim, 16)


_LINEAR = {"chunk": (16, 32, 64), "bk": (16, 32, 64), "bv": (16, 32, 64), "warps": (2, 4, 8)}
_SCAN = {"bt": (16, 32, 64, 128), "bd": (16, 32, 64), "warps": (1, 2, 4, 8)}
_WIDTHS = (16, 64, 256)

WORKLOADS: dict[str, Workload] = {
    "attention": Workload(
        {"bm": (16, 32, 64, 128), "bn": (32, 64, 128), "warps": (2, 4, 8), "stages": (1, 2, 3)},
        _attention_fits,
        _attention_steps,
    ),
    "dynamic_conv2d": Workload(
        {"members": (1, 2, 4, 8, 16), "positions": (64, 128, 256), "warps": (2, 4, 8)},
        _limited(32, "members", "positions"),
        _dynamic_steps,
        (16, 32),
        typed=False,
    ),
    "field_attention": Workload(
        {"count": (1, 2, 4, 8), "warps": (1, 2, 4, 8), "stages": (1, 2)},
        lambda settings, fields, itemsize, limit: (
            settings["count"] * fields * (fields + 64) <= REGISTERS * 32 * settings["warps"]
        ),
        _field_steps,
        (16, 32, 64),
    ),
    "gated_linear_attention": Workload(_LINEAR, _linear_fits, _gated_steps(False)),
    "gated_linear_attention by dimension": Workload(_LINEAR, _linear_fits, _gated_steps(True)),
    "gather_attention": Workload(
        {"bq": (1, 2, 4), "bs": (16, 32, 64), "warps": (1, 2, 4)},
        lambda settings, dim, itemsize, limit: (
            settings["bq"] * settings["bs"] * dim <= REGISTERS / 2 * 32 * settings["warps"]
        ),
        _gather_steps,
        typed=False,
    ),
    "linear_attention": Workload(_LINEAR, _linear_fits, _linear_steps),
    "scan": Workload(_SCAN, _limited(64, "bt", "bd"), _scan_steps, _WIDTHS, typed=False),
    "selective_scan": Workload(_SCAN, _limited(32, "bt", "bd"), _selective_steps, _WIDTHS, typed=False),
    "spmm": Workload(
        {"edges": (8, 16, 32, 64), "features": (16, 32, 64, 128), "warps": (1, 2, 4)},
        _limited(64, "edges", "features"),
        _graph_steps,
        typed=False,
    ),
}
"""Operator (or a kind of it) to how it is tuned."""
