"""What policies return, through the Triton kernels of attention: on a GPU, or interpreted."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget
from torch import Tensor

from graphrec.kernels import Source, joint_attention
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.patterns import FromStart, Streaming
from graphrec.kernels.policies import (
    biformer_routing,
    duo_heads,
    duo_pattern,
    psa_pyramid,
    vmoba_selection,
)

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"
Choice = Callable[[Tensor, Tensor, Tensor], tuple[list[Source], Tensor | None]]


def biformer(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Source], Tensor | None]:
    pattern = biformer_routing(q, k, (8, 9), (3, 4), 2)
    return [Source(k, v, pattern)], pattern.padding_sink()


def duo(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Source], Tensor | None]:
    full = duo_heads(torch.tensor([0.9, 0.1]), threshold=0.5)
    return [Source(k, v, duo_pattern(full, sinks=2, recent=5, groups=2))], None


def vmoba(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Source], Tensor | None]:
    return [Source(k, v, vmoba_selection(q, k, (2, 4, 9), (1, 2, 3)))], None


def psa(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Source], Tensor | None]:
    shares = {1: 0.4, 2: 0.7, 4: 1.0}
    return psa_pyramid(q, k, q_block=16, k_block=16, shares=shares, causal=True, sample=1.0).sources(
        k, v
    ), None


def late(q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Source], Tensor | None]:
    return [Source(k, v, FromStart(Streaming(2, 9), torch.tensor([0, 30], device=k.device)))], None


@pytest.mark.parametrize("choose", [biformer, duo, vmoba, psa, late])
def test_choices_through_the_kernels(choose: Choice) -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = [(2, 4, 72, 10), (2, 2, 72, 10), (2, 2, 72, 7)]
    fixed = [torch.randn(size, generator=draw, dtype=torch.float64).to(DEVICE) for size in sizes]

    def run(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def inner(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
            name = "reference" if q.dtype == torch.float64 else backend
            # chosen from the same numbers in every precision, pooled from those given
            chosen, sink = choose(*fixed)
            taken, _ = choose(fixed[0].to(q.dtype), k, v)
            sources = [
                Source(one.k, one.v, two.pattern, one.bias) for one, two in zip(taken, chosen, strict=True)
            ]
            sink = None if sink is None else sink.to(q.dtype)
            return joint_attention(q, sources, sink=sink, return_lse=True, backend=name)

        return inner

    assert_within_budget(run("triton"), run("reference"), fixed)
