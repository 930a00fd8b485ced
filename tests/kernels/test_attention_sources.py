"""Weights after the softmax, and several sources of keys under one softmax, against formulas written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_tools import Case, assert_within_budget, case_id, cases
from torch import Tensor

from graphrec.kernels import RelativeBias, Source, attention, joint_attention
from graphrec.kernels.patterns import (
    Causal,
    Full,
    Halo,
    KeyPadding,
    Neighborhood,
    Pattern,
    Window,
    Windows,
)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_hand(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, times: Tensor, plus: Tensor) -> Tensor:
    """Equation of the docstring, written out for patterns in which every query sees a key."""
    seen = pattern.mask(q.shape[2], k.shape[2])
    weights = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    return ((weights * times + plus) * seen) @ v


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("pattern", [Full(), Neighborhood((5, 6), 3), Windows((5, 6), 3)], ids=repr)
def test_weights_follow_the_formula(pattern: Pattern, backend: str) -> None:
    torch.manual_seed(0)
    q, k, v = (draw(2, 3, 30, 4) for _ in range(3))
    times, plus = draw(2, 1, 30, 30), draw(1, 3, 30, 30)
    found = attention(q, k, v, pattern, times=times, plus=plus, backend=backend)
    torch.testing.assert_close(found, by_hand(q, k, v, pattern, times, plus))


def shapes_of(pattern: Pattern) -> tuple[int, int, int]:
    """Batch, query heads and key heads."""
    heads = pattern.heads if pattern.heads > 1 else 4
    return max(pattern.batch, 2), heads, heads if pattern.heads > 1 else 2


@pytest.mark.parametrize("kind", ["dense", "table", "per query"])
@pytest.mark.parametrize("case", cases()[::2], ids=case_id)
def test_weights_under_every_pattern(case: Case, kind: str) -> None:
    torch.manual_seed(0)
    pattern, q_len, k_len = case
    batch, heads, k_heads = shapes_of(pattern)
    window = tuple(far + 1 for far in pattern.extent(q_len, k_len))
    columns = torch.Size(2 * one - 1 for one in window).numel()
    size = {
        "dense": (1, heads, q_len, k_len),
        "table": (heads, columns),
        "per query": (batch, 1, q_len, columns),
    }[kind]
    given = [draw(batch, heads, q_len, 6), draw(batch, k_heads, k_len, 6), draw(batch, k_heads, k_len, 5)]
    given += [draw(*size), draw(*size), draw(*size)]

    def runner(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def run(q: Tensor, k: Tensor, v: Tensor, *pairs: Tensor) -> tuple[Tensor, ...]:
            made = [one if kind == "dense" else RelativeBias(one, window) for one in pairs]
            return attention(
                q, k, v, pattern, bias=made[0], times=made[1], plus=made[2], return_lse=True, backend=backend
            )

        return run

    assert_within_budget(runner("torch"), runner("reference"), given)


def test_transnext_aggregated_attention() -> None:
    """Local window and pooled keys under one softmax, learnable tokens added to the local weights.

    The pixel-focused attention of TransNeXt (arXiv:2311.17132), written with unfolded windows: logits of the
    3 x 3 neighbours, masked beyond the border, and of pooled keys; then ``q @ tokens`` is added to the local
    part of the softmax.
    """
    torch.manual_seed(0)
    height = width = 6
    q, k, v = (draw(1, 2, 36, 4) for _ in range(3))
    pooled_k, pooled_v = (x.view(1, 2, 3, 2, 3, 2, 4).mean((3, 5)).flatten(2, 3) for x in (k, v))
    tokens = draw(2, 4, 9)
    dynamic = q @ tokens  # [B, H, Lq, 9], column by offset of the key from the query
    place = torch.arange(36)
    row, column = place // width, place % width
    offset = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    near_row, near_column = row[:, None] + offset[:, 0], column[:, None] + offset[:, 1]
    inside = (near_row >= 0) & (near_row < height) & (near_column >= 0) & (near_column < width)
    near = (near_row.clamp(0, height - 1) * width + near_column.clamp(0, width - 1)).masked_fill(~inside, 0)
    local = (q.unsqueeze(3) * k[:, :, near]).sum(-1).masked_fill(~inside, -torch.inf)
    weights = (torch.cat([local, q @ pooled_k.mT], -1) * 0.5).softmax(-1)
    local_weights = (weights[..., :9] + dynamic) * inside
    want = (local_weights.unsqueeze(-1) * v[:, :, near]).sum(3) + weights[..., 9:] @ pooled_v

    # A distance is query minus key, the offset is key minus query: the columns run backwards.
    plus = RelativeBias(dynamic.flip(-1), (2, 2))
    sources = [Source(k, v, Halo((height, width), 1, 1), plus=plus), Source(pooled_k, pooled_v)]
    for backend in ("reference", "torch"):
        torch.testing.assert_close(joint_attention(q, sources, backend=backend), want)


def sources_of(given: tuple[Tensor, ...]) -> list[Source]:
    """A neighborhood with a table, a padded cross source with dense weights, a few full keys."""
    k1, v1, k2, v2, k3, v3, table, times, plus, bias = given
    valid = torch.tensor([[True, False, True, True, False], [False] * 5])
    return [
        Source(k1, v1, Neighborhood((4, 5), 3), RelativeBias(table, (3, 3)), RelativeBias(times, (3, 3))),
        Source(k2, v2, KeyPadding(valid), bias, None, plus),
        Source(k3, v3, Causal(offset=-6)),
    ]


def joint_inputs() -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(2, 2, 20, 6), (2, 2, 20, 4), (2, 1, 5, 6), (2, 1, 5, 4), (2, 2, 3, 6), (2, 2, 3, 4)]
    return [
        draw(2, 2, 20, 6),
        *(draw(*size) for size in sizes),
        draw(2, 25),
        draw(2, 2, 20, 25),
        draw(2, 1, 20, 5),
        draw(1, 2, 1, 5),
    ]


def test_sources_share_one_softmax() -> None:
    def runner(backend: str) -> Callable[..., tuple[Tensor, ...]]:
        def run(q: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            return joint_attention(q, sources_of(rest), return_lse=True, backend=backend)

        return run

    assert_within_budget(runner("torch"), runner("reference"), joint_inputs())


def test_gradients_of_joint_attention() -> None:
    given = [one.requires_grad_() for one in joint_inputs()]
    sink = draw(2).requires_grad_()

    def run(q: Tensor, sink: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return joint_attention(q, sources_of(rest), sink=sink, return_lse=True, backend="torch")

    assert torch.autograd.gradcheck(run, (given[0], sink, *given[1:]), fast_mode=True)


def test_keys_cut_into_sources_are_the_whole() -> None:
    torch.manual_seed(0)
    q, k, v = draw(2, 3, 11, 6), draw(2, 3, 14, 6), draw(2, 3, 14, 5)
    times, plus = draw(1, 1, 11, 14), draw(2, 3, 11, 14)
    sink, gate = draw(3), draw(2, 3, 11)
    whole = attention(q, k, v, times=times, plus=plus, sink=sink, gate=gate)
    for backend in ("reference", "torch"):
        parts = [
            Source(k[:, :, at], v[:, :, at], times=times[..., at], plus=plus[..., at])
            for at in (slice(0, 1), slice(1, 9), slice(9, 14))
        ]
        found = joint_attention(q, parts, sink=sink, gate=gate, backend=backend)
        torch.testing.assert_close(found, whole)


def test_zero_borders_join_the_softmax_of_all_sources() -> None:
    torch.manual_seed(0)
    q, k, v = (draw(1, 2, 30, 4) for _ in range(3))
    more = draw(1, 2, 3, 4)
    sources = [Source(k, v, Windows((5, 6), 4, border="zero")), Source(more, more)]
    torch.testing.assert_close(
        joint_attention(q, sources, backend="torch"), joint_attention(q, sources, backend="reference")
    )


def test_nothing_seen_in_any_source() -> None:
    q = draw(1, 1, 3, 4).requires_grad_()
    keys = draw(1, 1, 2, 4)
    sources = [(keys, keys, Causal(offset=-1)), (keys, keys, Window(0, 0, offset=-2))]
    out, lse = joint_attention(q, [Source(*one) for one in sources], return_lse=True, backend="torch")
    assert not out[:, :, 0].any()
    assert lse[0, 0, 0] == -torch.inf
    (out.sum() + lse[lse.isfinite()].sum()).backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
    assert not q.grad[:, :, 0].any()


@pytest.mark.parametrize("folded", [True, False])
def test_second_derivatives(folded: bool) -> None:
    torch.manual_seed(0)
    pattern: Pattern = Windows((4, 4), 2) if folded else Neighborhood((6, 6), 3)
    length = 16 if folded else 36
    q, k, v = (draw(1, 1, length, 2).requires_grad_() for _ in range(3))

    def run(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        return attention(q, k, v, pattern, return_lse=True, backend="torch")

    assert torch.autograd.gradgradcheck(run, (q, k, v), fast_mode=True)


def test_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    given = [one.float().requires_grad_() for one in joint_inputs()]

    def run(q: Tensor, *rest: Tensor) -> Tensor:
        return joint_attention(q, sources_of(rest)).sin()

    found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(*given), run(*given)
    torch.testing.assert_close(found, want)
    for one, other in zip(*(torch.autograd.grad(out.sum(), given) for out in (found, want)), strict=True):
        torch.testing.assert_close(one, other)


def zeros(*size: int) -> Tensor:
    return torch.zeros(size)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: joint_attention(zeros(1, 1, 2, 2), []), "at least one"),
        (
            lambda: joint_attention(zeros(1, 1, 2, 2), [Source(zeros(1, 1, 2, 2), zeros(1, 1, 3, 2))]),
            r"sources\[0\]: v of shape \(1, 1, 3, 2\)",
        ),
        (
            lambda: joint_attention(
                zeros(1, 1, 2, 2), [(zeros(1, 1, 2, 2),) * 2, (zeros(1, 1, 3, 2), zeros(1, 1, 3, 4))]
            ),
            r"sources\[1\]: v of shape \(1, 1, 3, 4\) must end in 2",
        ),
        (lambda: attention(*[zeros(1, 1, 4, 2)] * 3, times=zeros(1, 1, 4, 5)), r"times of shape"),
        (lambda: attention(*[zeros(1, 1, 4, 2)] * 3, plus=zeros(4, 4)), r"plus of shape \(4, 4\)"),
        (
            lambda: attention(*[zeros(1, 1, 4, 2)] * 3, times=RelativeBias(zeros(1, 1, 3, 7), 4)),
            r"table of shape \(1, 1, 3, 7\) must broadcast to \(1, 1, 4, 7\)",
        ),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
