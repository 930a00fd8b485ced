"""PSA: importance, levels and pooled keys, against slow code, and attention over the pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphrec.kernels import attention, joint_attention, merge
from graphrec.kernels.patterns import Full
from graphrec.kernels.policies import (
    Pyramid,
    block_importance,
    psa_levels,
    psa_pyramid,
    similar_levels,
)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pyramid_attention(
    q: Tensor, k: Tensor, v: Tensor, pyramid: Pyramid, backend: str | None = None
) -> Tensor:
    return joint_attention(q, pyramid.sources(k, v), backend=backend)


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, pyramid: Pyramid) -> Tensor:
    """One softmax per query over whole and pooled keys, collected one by one; a mean of c keys weighs c."""
    share = q.shape[1] // k.shape[1]
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                weights, values = [], []
                for j in range(math.ceil(k.shape[2] / pyramid.k_block)):
                    level = int(pyramid.levels[b, h, i // pyramid.q_block, j])
                    stop = min((j + 1) * pyramid.k_block, k.shape[2])
                    for start in range(j * pyramid.k_block, stop, level) if level else ():
                        run = slice(start, min(start + level, stop))
                        if pyramid.causal and start + level - 1 > i:
                            continue
                        keys, vals = k[b, h // share, run], v[b, h // share, run]
                        weight = torch.exp(q[b, h, i] @ keys.mean(0) * q.shape[3] ** -0.5) * len(keys)
                        weights.append(weight)
                        values.append(vals.mean(0))
                if weights:
                    total = torch.stack(weights)
                    out[b, h, i] = (total / total.sum()) @ torch.stack(values)
    return out


def importance_by_hand(q: Tensor, k: Tensor, q_block: int, k_block: int, causal: bool) -> Tensor:
    """The largest weight of each pair of blocks, all tokens looked at."""
    logits = q @ k.mT * q.shape[3] ** -0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[2:]).triu(1).bool(), -torch.inf)
    weights = logits.softmax(-1)
    rows = [[part.amax((2, 3)) for part in row.split(k_block, 3)] for row in weights.split(q_block, 2)]
    return torch.stack([torch.stack(row, -1) for row in rows], 2)


@pytest.mark.parametrize("causal", [False, True])
def test_importance_of_all_tokens(causal: bool) -> None:
    q, k = draw(2, 3, 45, 8), draw(2, 3, 45, 8, seed=1)
    found = block_importance(q, k, q_block=8, k_block=16, causal=causal, sample=1.0)
    torch.testing.assert_close(found.double(), importance_by_hand(q, k, 8, 16, causal), rtol=1e-5, atol=1e-6)


def test_sampled_importance_is_that_of_some_tokens_of_each_block() -> None:
    q, k = draw(1, 1, 64, 8), draw(1, 1, 64, 8, seed=1)
    found = block_importance(q, k, q_block=16, k_block=8, generator=torch.Generator().manual_seed(0))
    again = block_importance(q, k, q_block=16, k_block=8, generator=torch.Generator().manual_seed(0))
    other = block_importance(q, k, q_block=16, k_block=8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found, again)
    assert not torch.equal(found, other)
    logits = (q @ k.mT * 8**-0.5)[0, 0].float()
    draws = torch.Generator().manual_seed(0)
    rows = torch.rand(16, generator=draws).topk(4).indices
    columns = torch.rand(8, generator=draws).topk(2).indices
    taken = logits[(torch.arange(4)[:, None] * 16 + rows).flatten()]
    taken = taken[:, (torch.arange(8)[:, None] * 8 + columns).flatten()].softmax(-1)
    torch.testing.assert_close(found[0, 0], taken.view(4, 4, 8, 2).amax((1, 3)))


def levels_by_hand(scores: Tensor, shares: dict[int, float], by: str, least: float, causal: bool) -> Tensor:
    """Levels of one row of scores after the other."""
    found = torch.zeros(scores.shape, dtype=torch.int64)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in scores.shape[:3])).tolist():
        b, h, i = place
        row = scores[b, h, i].tolist()
        seen = range(min(i + 1, len(row))) if causal else range(len(row))
        order = sorted(seen, key=lambda j: -row[j])
        total, reached = sum(row[j] for j in seen), 0.0
        for rank, j in enumerate(order):
            for level in sorted(shares):
                inside = (
                    rank < int(len(order) * shares[level])
                    if by == "rank"
                    else reached <= shares[level] + 1e-6
                )
                if inside:
                    found[b, h, i, j] = level
                    break
            if by == "mass" and least and rank < int(len(row) * least) + 1:
                found[b, h, i, j] = 1
            reached += row[j] / total
        if causal:
            found[b, h, i, 0] = 1
            found[b, h, i, i] = 1
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("by", "least"), [("rank", 0.0), ("mass", 0.0), ("mass", 0.2)])
def test_levels_follow_the_ranking(by: str, least: float, causal: bool) -> None:
    scores = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)) ** 3
    shares = {1: 0.2, 2: 0.4, 4: 0.4, 8: 0.8}
    found = psa_levels(scores, shares, by=by, least=least, causal=causal)  # type: ignore[arg-type]
    assert torch.equal(found, levels_by_hand(scores, shares, by, least, causal))
    assert {0, 1, 8} <= set(found.unique().tolist()) <= {0, 1, 2, 8}


def test_similar_levels_look_at_the_ends_of_each_run() -> None:
    k = draw(1, 2, 70, 4)
    k[:, :, 1:32:2] = k[:, :, 0:32:2]  # neighbours agree in the first two blocks
    k[:, :, 16:32] = k[:, :, 16:17]  # and all of the second
    thresholds = {2: 0.9, 4: 0.9, 8: 0.9}
    found = similar_levels(k, 16, thresholds)
    for h in range(2):
        for block in range(5):
            want = 1
            for level, least in thresholds.items():
                cosines = []
                for start in range(block * 16, min(block * 16 + 16, 70) - level + 1, level):
                    first, last = k[0, h, start], k[0, h, start + level - 1]
                    cosines.append(float(first @ last / first.norm() / last.norm()))
                if cosines and sum(cosines) / len(cosines) > least:
                    want = level
            assert int(found[0, h, block]) == want
    assert found[0, :, :2].tolist() == [[2, 8], [2, 8]]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [64, 61])
def test_attention_over_the_pyramid(causal: bool, length: int) -> None:
    q, k, v = draw(1, 4, length, 8), draw(1, 2, length, 8, seed=1), draw(1, 2, length, 5, seed=2)
    pyramid = psa_pyramid(
        q, k, q_block=16, k_block=16, shares={1: 0.3, 2: 0.6, 8: 0.8}, causal=causal, sample=1.0
    )
    assert set(pyramid.levels.unique().tolist()) == {0, 1, 2, 8}
    truth = attention_by_hand(q, k, v, pyramid)
    for backend in ("reference", "torch"):
        torch.testing.assert_close(pyramid_attention(q, k, v, pyramid, backend), truth)


def test_means_in_the_querys_own_block_hold_no_later_key() -> None:
    q, k, v = (draw(1, 2, 30, 8, seed=seed) for seed in range(3))
    levels = torch.full((1, 2, 4, 4), 4).tril()
    pyramid = Pyramid(levels, (1, 4), 8, 8, causal=True)
    found = pyramid_attention(q, k, v, pyramid)
    torch.testing.assert_close(found, attention_by_hand(q, k, v, pyramid))
    assert not found[:, :, :3].any()  # the first mean is whole at the fourth query
    assert found[:, :, 3:].all()


def test_levels_merge_from_attention_over_each() -> None:
    q, k, v = (draw(1, 2, 64, 8, seed=seed) for seed in range(3))
    pyramid = psa_pyramid(q, k, q_block=16, k_block=16, shares={1: 0.3, 2: 0.6, 8: 0.8})
    parts = [
        attention(q, one.k, one.v, one.pattern or Full(), bias=one.bias, return_lse=True)
        for one in pyramid.sources(k, v)
    ]
    merged = merge([out for out, _ in parts], [lse for _, lse in parts])[0]
    torch.testing.assert_close(merged, pyramid_attention(q, k, v, pyramid))


def test_unequal_blocks_and_lengths() -> None:
    q, k, v = draw(2, 2, 40, 8), draw(2, 2, 70, 8, seed=1), draw(2, 2, 70, 8, seed=2)
    pyramid = psa_pyramid(q, k, q_block=16, k_block=8, by="mass", shares={1: 0.3, 4: 0.8}, sample=0.5)
    torch.testing.assert_close(pyramid_attention(q, k, v, pyramid), attention_by_hand(q, k, v, pyramid))
    work = sum(1 / level for level in pyramid.levels.flatten().tolist() if level)
    assert pyramid.density == pytest.approx(work / pyramid.levels.numel())


@pytest.mark.parametrize("causal", [False, True])
def test_the_future_changes_neither_levels_nor_output(causal: bool) -> None:
    q, k, v = (draw(1, 2, 96, 8, seed=seed) for seed in range(3))
    later = [x.clone() for x in (q, k, v)]
    for x in later:
        x[:, :, 48:] = draw(1, 2, 48, 8, seed=9)
    options = {"q_block": 16, "k_block": 16, "shares": {1: 0.3, 2: 0.6, 8: 0.8}, "causal": causal}
    similar = {2: -0.1, 8: 0.0}
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    one = psa_pyramid(q, k, similarity=similar, generator=draws[0], **options)  # type: ignore[arg-type]
    two = psa_pyramid(later[0], later[1], similarity=similar, generator=draws[1], **options)  # type: ignore[arg-type]
    before, after = pyramid_attention(q, k, v, one), pyramid_attention(*later, two)
    same = torch.equal(one.levels[:, :, :3], two.levels[:, :, :3])
    assert same == causal  # without it the test would not notice
    assert torch.allclose(before[:, :, :48], after[:, :, :48], atol=1e-12) == causal
    assert not torch.allclose(before[:, :, 48:], after[:, :, 48:])


def test_no_query_sees_what_comes_after_it() -> None:
    """Every position after a query, its own block included, leaves the output alone once levels are fixed."""
    q, k, v = (draw(1, 1, 64, 4, seed=seed) for seed in range(3))
    pyramid = psa_pyramid(q, k, q_block=16, k_block=16, shares={1: 0.2, 4: 1.0}, causal=True, sample=1.0)
    for place in (0, 7, 23, 40):
        moved_k, moved_v = k.clone(), v.clone()
        moved_k[:, :, place + 1 :] += 5
        moved_v[:, :, place + 1 :] += 5
        before, after = pyramid_attention(q, k, v, pyramid), pyramid_attention(q, moved_k, moved_v, pyramid)
        torch.testing.assert_close(before[:, :, : place + 1], after[:, :, : place + 1])


def test_similarity_limits_the_level() -> None:
    q, k = draw(1, 2, 64, 8), draw(1, 2, 64, 8, seed=1)
    free = psa_pyramid(q, k, q_block=16, k_block=16, shares={1: 0.25, 2: 0.5, 8: 1.0}, sample=1.0)
    bound = psa_pyramid(
        q, k, q_block=16, k_block=16, shares={1: 0.25, 2: 0.5, 8: 1.0}, sample=1.0, similarity={2: -1, 8: 2}
    )
    assert torch.equal(bound.levels, free.levels.clamp(max=2))


def test_everything_whole_is_full_attention() -> None:
    q, k, v = (draw(1, 2, 50, 8, seed=seed) for seed in range(3))
    pyramid = psa_pyramid(q, k, q_block=16, k_block=16, shares={1: 1.0})
    torch.testing.assert_close(pyramid_attention(q, k, v, pyramid), attention(q, k, v))


def test_constant_keys_lose_nothing_by_pooling() -> None:
    """The logarithm of the count is what makes pooled keys weigh what they stand for."""
    q, k, v = (draw(1, 2, 64, 8, seed=seed) for seed in range(3))
    k, v = (x[:, :, ::8].repeat_interleave(8, 2) for x in (k, v))
    pyramid = psa_pyramid(q, k, q_block=16, k_block=16, shares={1: 0.25, 2: 0.5, 4: 0.75, 8: 1.0}, sample=1.0)
    assert pyramid.density < 0.5
    torch.testing.assert_close(pyramid_attention(q, k, v, pyramid), attention(q, k, v))


def test_gradients_reach_keys_and_values_through_the_means() -> None:
    q, k, v = (draw(1, 1, 12, 3, seed=seed).requires_grad_() for seed in range(3))
    pyramid = psa_pyramid(q, k, q_block=4, k_block=4, shares={1: 0.4, 2: 1.0}, sample=1.0)
    assert torch.autograd.gradcheck(lambda *x: pyramid_attention(*x, pyramid), (q, k, v))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: psa_pyramid(q, q, k_block=12, shares={8: 1.0}), "divide k_block"),
        (lambda q: psa_pyramid(q, q, causal=True), "equal lengths and blocks"),
        (lambda q: psa_pyramid(q, q, shares={1: 0.5, 2: 0.4}), "must rise"),
        (lambda q: psa_pyramid(q, q, shares={}), "must rise"),
        (lambda q: psa_pyramid(q, q, by="energy"), "by='energy'"),
        (lambda q: psa_pyramid(q, q, sample=0.0), "sample=0.0"),
        (lambda q: psa_pyramid(q, q, similarity={16: 0.5}), "similarity="),
        (lambda q: psa_pyramid(q, q[0]), r"k of shape \(3, 16, 4\)"),
        (lambda q: pyramid_attention(q[..., :9, :], q, q, psa_pyramid(q, q, q_block=4)), "map of shape"),
    ],
)
def test_bad_input_is_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(draw(1, 3, 16, 4))
