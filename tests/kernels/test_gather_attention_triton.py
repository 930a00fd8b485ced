"""The Triton kernels over listed keys and those that choose blocks, on a GPU or interpreted."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor

from graphrec.kernels import gather_attention, select_blocks
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def index(high: int, *shape: int) -> Tensor:
    return torch.randint(-1, high, shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


CASES: list[tuple[tuple[int, int], tuple[int, int], tuple[int, int], int, bool, tuple[int, ...] | None]] = [
    ((1, 1), (1, 1), (1, 1), 1, True, None),
    ((2, 65), (1, 1), (32, 16), 7, True, (1, 1)),
    ((20, 7), (4, 2), (6, 10), 20, True, None),
    ((20, 9), (4, 2), (10, 7), 5, False, (2, 4)),
    ((17, 8), (2, 2), (64, 77), 4, True, (2, 1)),
    ((5, 4), (1, 1), (4, 4), 0, False, None),
]


@pytest.mark.parametrize(("lengths", "heads", "dims", "listed", "own", "bias"), CASES)
def test_lists(
    lengths: tuple[int, int],
    heads: tuple[int, int],
    dims: tuple[int, int],
    listed: int,
    own: bool,
    bias: tuple[int, ...] | None,
) -> None:
    torch.manual_seed(0)
    (q_len, k_len), (many, few), (dim, v_dim) = lengths, heads, dims
    lists = index(k_len, 2, many if own else 1, q_len, listed)
    lists[:, :, 0] = -1
    given = [
        torch.randn(2, q_len, many, dim, dtype=torch.float64, device=DEVICE).transpose(1, 2),
        torch.randn(2, few, k_len, dim, dtype=torch.float64, device=DEVICE),
        torch.randn(2, few, k_len, 2 * v_dim, dtype=torch.float64, device=DEVICE)[..., ::2],
    ]
    if bias is not None:
        given.append(torch.randn(*bias, q_len, listed, dtype=torch.float64, device=DEVICE))

    def runner(backend: str) -> Callable[..., tuple[Tensor]]:
        def run(q: Tensor, k: Tensor, v: Tensor, *added: Tensor) -> tuple[Tensor]:
            name = "reference" if q.dtype == torch.float64 else backend
            return (gather_attention(q, k, v, lists, bias=added[0] if added else None, backend=name),)

        return run

    assert_within_budget(runner("triton"), runner("reference"), given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 12, 32, device=DEVICE).to(dtype).requires_grad_() for _ in range(3))
    exact = [one.detach().double().requires_grad_() for one in (q, k, v)]
    lists = index(12, 1, 1, 12, 5)
    out = gather_attention(q, k, v, lists, backend="triton")
    want = gather_attention(*exact, lists, backend="reference")
    weights = torch.randn(want.shape, device=DEVICE, dtype=torch.float64)
    found = [out, *torch.autograd.grad(out, (q, k, v), weights.to(dtype))]
    truth = [want, *torch.autograd.grad(want, exact, weights)]
    for one, other in zip(found, truth, strict=True):
        assert distance(one, other) < 4 * torch.finfo(dtype).eps


def test_lists_are_registered() -> None:
    from graphrec.kernels.attention.keylists_triton import listed_attention_triton

    q, k, v = (torch.randn(1, 2, 5, 4, device=DEVICE, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 2, 5, 3, device=DEVICE, requires_grad=True)
    torch.library.opcheck(listed_attention_triton.registered, (q, k, v, index(5, 1, 1, 5, 3), bias, 0.5))


def test_compiles_into_one_graph() -> None:
    q, k, v = (torch.randn(1, 2, 6, 4, device=DEVICE, requires_grad=True) for _ in range(3))
    lists = index(6, 1, 2, 6, 3)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        chosen = select_blocks(q, k, block=2, topk=2, backend="triton")
        return gather_attention(q, k, v, lists, backend="triton").sin() + chosen.sum()

    found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(q, k, v), run(q, k, v)
    torch.testing.assert_close(found, want)
    for one, other in zip(*(torch.autograd.grad(x.sum(), (q, k, v)) for x in (found, want)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("lengths", "block", "topk", "causal", "dim"),
    [
        ((65, 70), 16, 3, False, 10),
        ((30, 46), 8, 4, True, 16),
        ((7, 7), 64, 2, True, 1),
        ((40, 3), 1, 5, False, 3),
    ],
)
def test_blocks(lengths: tuple[int, int], block: int, topk: int, causal: bool, dim: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, lengths[0], 4, dim, device=DEVICE).transpose(1, 2)
    k = torch.randn(1, 2, lengths[1], dim, device=DEVICE)
    found, want = (
        select_blocks(q, k, block=block, topk=topk, causal=causal, backend=name)
        for name in ("triton", "reference")
    )
    assert torch.equal(found, want)


def test_choosing_is_registered() -> None:
    from graphrec.kernels.attention.blocks_triton import choose_blocks

    q, k = (torch.randn(1, heads, 9, 4, device=DEVICE) for heads in (2, 1))
    torch.library.opcheck(choose_blocks.registered, (q, k, 4, 2, True))
