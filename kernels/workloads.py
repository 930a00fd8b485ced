"""What ``python -m graphrec.kernels.tune`` times for each operator, and which settings it tries.

``WORKLOADS`` is the table: an operator is tuned by adding a line to it. Settings that an architecture's
registers or shared memory cannot hold are left out before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from .attention import attention
from .patterns import Causal, Neighborhood, Pattern, Windows

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
    """

    choices: dict[str, tuple[int, ...]]
    fits: Callable[[Settings, int, int, int], bool]
    steps: Callable[[int, torch.dtype, torch.device], list[Step]]
    dims: Sequence[int] = (16, 32, 64, 128)

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


def _attention_step(
    pattern: Pattern, batch: int, heads: int, length: int, dim: int, dtype: torch.dtype, device: torch.device
) -> Step:
    size = batch, heads, length, dim
    q, k, v = (torch.randn(size, dtype=dtype, device=device, requires_grad=True) for _ in range(3))
    return training_step(lambda backend: attention(q, k, v, pattern, backend=backend), (q, k, v))


WORKLOADS: dict[str, Workload] = {
    "attention": Workload(
        {"bm": (16, 32, 64, 128), "bn": (32, 64, 128), "warps": (2, 4, 8), "stages": (1, 2, 3)},
        _attention_fits,
        _attention_steps,
    ),
}
"""Operator to how it is tuned."""
