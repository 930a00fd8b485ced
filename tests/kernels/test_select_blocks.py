"""Choosing blocks: torch against the block-by-block reference, causality of the selection, the pattern."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphrec.kernels import attention, select_blocks
from graphrec.kernels.patterns import BlockLists, Causal


@settings(max_examples=40)
@given(st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    q_len = data.draw(st.sampled_from([1, 2, 7, 49, 63, 65, 197]))
    causal = data.draw(st.booleans())
    block, topk = data.draw(st.sampled_from([1, 7, 16, 64])), data.draw(st.integers(1, 5))
    k_len = q_len + block * data.draw(st.integers(0, 2)) if causal else data.draw(st.integers(0, 150))
    batch, k_heads, share, dim = (data.draw(st.integers(1, 3)) for _ in range(4))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    q = torch.randn(batch, q_len, k_heads * share, dim).transpose(1, 2)
    k = torch.randn(batch, k_heads, k_len, dim, requires_grad=True)
    found, want = (
        select_blocks(q, k, block=block, topk=topk, causal=causal, backend=name)
        for name in ("torch", "reference")
    )
    assert found.dtype == torch.int64
    assert not found.requires_grad
    assert torch.equal(found, want)


def test_the_best_block_is_found() -> None:
    """One block of keys points where the queries do."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 70, 8) * 0.1 + 1, torch.randn(1, 1, 100, 8) * 0.1
    k[:, :, 32:48] += 1
    assert select_blocks(q, k, block=16, topk=2)[..., 0].unique().tolist() == [2]


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_changing_the_future_changes_nothing(backend: str) -> None:
    """For every position: new random tensors after it leave the list of its block as it was."""
    torch.manual_seed(0)
    block, past = 4, 8
    q, k, v = torch.randn(1, 2, 22, 3), torch.randn(1, 2, 30, 3), torch.randn(1, 2, 30, 3)

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        lists = select_blocks(q, k, block=block, topk=3, causal=True, backend=backend)
        return lists, attention(q, k, v, BlockLists(lists, block) & Causal(offset=past))

    lists, out = run(q, k, v)
    for place in range(22):
        changed = [x.clone() for x in (q, k, v)]
        changed[0][:, :, place + 1 :] = torch.randn(1, 2, 21 - place, 3)
        for x in changed[1:]:
            x[:, :, past + place + 1 :] = torch.randn(1, 2, 21 - place, 3)
        other, other_out = run(*changed)
        assert torch.equal(other[:, :, : place // block + 1], lists[:, :, : place // block + 1])
        torch.testing.assert_close(other_out[:, :, : place + 1], out[:, :, : place + 1])


def test_own_block_comes_first_and_the_past_runs_out() -> None:
    q = torch.randn(1, 1, 10, 2)
    found = select_blocks(q, q, block=3, topk=3, causal=True)[0, 0]
    assert found[:, 0].tolist() == [0, 1, 2, 3]
    assert found[0].tolist() == [0, -1, -1]
    assert found[1].tolist() == [1, 0, -1]
    assert sorted(found[2].tolist()) == [0, 1, 2]


def test_lists_of_all_blocks_are_full_attention() -> None:
    q, k, v = (torch.randn(2, 2, 50, 4) for _ in range(3))
    lists = select_blocks(q, k, block=16, topk=4)
    torch.testing.assert_close(attention(q, k, v, BlockLists(lists, 16)), attention(q, k, v))


def test_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    q, k = torch.randn(1, 2, 40, 4), torch.randn(1, 1, 40, 4)

    def run(q: Tensor, k: Tensor) -> Tensor:
        return select_blocks(q, k, block=8, topk=2, causal=True)

    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(q, k), run(q, k))


def zeros(*size: int) -> Tensor:
    return torch.zeros(size)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: select_blocks(zeros(1, 1, 4, 2), zeros(1, 1, 4, 3), topk=1), r"k of shape \(1, 1, 4, 3\)"),
        (lambda: select_blocks(zeros(1, 1, 4, 2), zeros(1, 1, 4, 2), topk=0), "topk=0"),
        (lambda: select_blocks(zeros(1, 1, 4, 2), zeros(1, 1, 4, 2), block=0, topk=1), "block=0"),
        (
            lambda: select_blocks(zeros(1, 1, 4, 2), zeros(1, 1, 7, 2), block=2, topk=1, causal=True),
            "whole blocks of 2 more, got 4 queries and 7 keys",
        ),
        (
            lambda: select_blocks(zeros(1, 1, 4, 2), zeros(1, 1, 4, 2), topk=1, backend="triton"),
            "cannot run select_blocks",
        ),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
