"""Weights after the softmax and joint sources on the Triton kernels; a plan serves both directions."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from kernel_tools import assert_within_budget
from torch import Tensor

from graphrec.kernels import RelativeBias, Source, attention, joint_attention
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.patterns import (
    BlockLists,
    Causal,
    Full,
    KeyPadding,
    Neighborhood,
    Pattern,
    PerHead,
    Tokens,
    Windows,
)

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE)


def index(high: int, *shape: int) -> Tensor:
    return torch.randint(-1, high, shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


CASES: list[tuple[Pattern, int, int, str]] = [
    (Full(), 9, 70, "dense"),
    (Causal(), 70, 70, "table"),
    (Neighborhood((6, 7), 3), 42, 42, "per query"),
    (Windows((8, 4), 4), 32, 32, "per query"),
    (Windows((8, 8), 4, shift=2, border="-100"), 64, 64, "table"),
    (PerHead(Full(), Causal()), 20, 30, "per query"),
    (Tokens(index(33, 2, 1, 20, 5)), 20, 33, "dense"),
    (BlockLists(index(3, 2, 2, 2, 2), 16), 30, 40, "per query"),
]


@pytest.mark.parametrize(("pattern", "q_len", "k_len", "kind"), CASES, ids=repr)
def test_weights(pattern: Pattern, q_len: int, k_len: int, kind: str) -> None:
    torch.manual_seed(0)
    window = tuple(far + 1 for far in pattern.extent(q_len, k_len))
    columns = torch.Size(2 * one - 1 for one in window).numel()
    size = {"dense": (1, 2, q_len, k_len), "table": (2, columns), "per query": (2, 1, q_len, columns)}[kind]
    given = [
        draw(2, 2, q_len, 6),
        draw(2, 2, k_len, 6),
        draw(2, 2, k_len, 5),
        *(draw(*size) for _ in range(3)),
    ]

    def runner(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def run(q: Tensor, k: Tensor, v: Tensor, *pairs: Tensor) -> tuple[Tensor, ...]:
            made = [one if kind == "dense" else RelativeBias(one, window) for one in pairs]
            name = "reference" if q.dtype == torch.float64 else backend
            return attention(
                q, k, v, pattern, bias=made[0], times=made[1], plus=made[2], return_lse=True, backend=name
            )

        return run

    assert_within_budget(runner("triton"), runner("reference"), given)


def test_joint_sources() -> None:
    torch.manual_seed(0)
    valid = torch.tensor([[True, False, True, True, False], [False] * 5], device=DEVICE)

    def runner(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def run(q: Tensor, k1: Tensor, k2: Tensor, times: Tensor, plus: Tensor) -> tuple[Tensor, ...]:
            name = "reference" if q.dtype == torch.float64 else backend
            sources = [
                Source(k1, k1, Neighborhood((4, 5), 3), times=RelativeBias(times, (3, 3))),
                Source(k2, k2, KeyPadding(valid), plus=plus),
            ]
            return joint_attention(q, sources, return_lse=True, backend=name)

        return run

    given = [draw(2, 2, 20, 6), draw(2, 2, 20, 6), draw(2, 1, 5, 6), draw(2, 2, 20, 25), draw(2, 1, 20, 5)]
    assert_within_budget(runner("triton"), runner("reference"), given)


def test_the_backward_finds_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that holds tensors is planned once for a forward, its backward, and a second layer."""
    made = 0
    tiles = Tokens.tiles

    def counted(self: Tokens, *args: object, **kwargs: object) -> object:
        nonlocal made
        made += 1
        return tiles(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Tokens, "tiles", counted)
    chosen = index(10, 10, 3)
    q = torch.randn(1, 1, 10, 4, device=DEVICE, requires_grad=True)
    for _ in range(2):
        attention(q, q, q, Tokens(chosen), backend="triton").sum().backward()
    assert made == 1
    chosen[0, 0] = 9 - chosen[0, 0]
    attention(q, q, q, Tokens(chosen), backend="triton")
    assert made == 2


def test_a_change_in_place_is_seen() -> None:
    chosen = torch.zeros(4, 1, dtype=torch.int64, device=DEVICE)
    q = torch.randn(1, 1, 4, 4, device=DEVICE)
    first = attention(q, q, q, Tokens(chosen), backend="triton")
    chosen += 2
    second = attention(q, q, q, Tokens(chosen), backend="triton")
    torch.testing.assert_close(first[0, 0], q[0, 0, [0] * 4])
    torch.testing.assert_close(second[0, 0], q[0, 0, [2] * 4])
