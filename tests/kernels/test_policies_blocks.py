"""BiFormer, DuoAttention and VMoBA: what they select, against slow code that follows the papers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphrec.kernels import attention
from graphrec.kernels.patterns import Causal, Full, PerHead, Regions, Streaming, decode, encode
from graphrec.kernels.policies import (
    biformer_region,
    biformer_routing,
    duo_gates,
    duo_heads,
    duo_pattern,
    vmoba_region,
    vmoba_selection,
)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cells_by_hand(shape: tuple[int, ...], region: tuple[int, ...]) -> list[list[int]]:
    """Positions of each block, by walking over the grid."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place in range(math.prod(shape)):
        rest, where = place, []
        for size in reversed(shape):
            where.append(rest % size)
            rest //= size
        home = tuple(one // step for one, step in zip(reversed(where), region, strict=True))
        found.setdefault(home, []).append(place)
    return [found[home] for home in sorted(found)]


def routed_by_hand(
    q: Tensor, k: Tensor, shape: tuple[int, ...], region: tuple[int, ...], topk: int
) -> Tensor:
    """Regions that each region takes, bool (B, R, R), from means over all heads side by side."""
    cells = cells_by_hand(shape, region)
    chosen = torch.zeros(q.shape[0], len(cells), len(cells), dtype=torch.bool)
    for b in range(q.shape[0]):
        wide_q, wide_k = (x[b].transpose(0, 1).flatten(1) for x in (q, k))  # [L, heads * dim]
        for mine, places in enumerate(cells):
            scores = [float(wide_q[places].mean(0) @ wide_k[other].mean(0)) for other in cells]
            for other in sorted(range(len(cells)), key=lambda one: -scores[one])[:topk]:
                chosen[b, mine, other] = True
    return chosen


@pytest.mark.parametrize(
    ("shape", "region", "topk"),
    [((8, 8), (2, 4), 3), ((7, 10), (3, 4), 2), ((9,), (4,), 1), ((5, 5), (5, 5), 1)],
)
def test_biformer_takes_the_regions_of_the_paper(
    shape: tuple[int, ...], region: tuple[int, ...], topk: int
) -> None:
    q, k = draw(2, 4, math.prod(shape), 6), draw(2, 4, math.prod(shape), 6, seed=1)
    pattern = biformer_routing(q, k, shape, region, topk)
    assert torch.equal(pattern.map[:, 0], routed_by_hand(q, k, shape, region, topk))
    assert pattern.heads == 1
    shared = biformer_routing(q, k[:, :2], shape, region, topk)
    assert torch.equal(shared.map[:, 0], routed_by_hand(q, k[:, [0, 0, 1, 1]], shape, region, topk))


@pytest.mark.parametrize("windows", [2, 3, 4])
def test_biformer_computes_what_zero_padding_computes(windows: int) -> None:
    """As in the official ``bra_nchw.py``: zeros around the grid join the softmax."""
    shape = (7, 10)
    region = biformer_region(shape, windows)
    q, k, v = (draw(2, 2, 70, 4, seed=seed) for seed in range(3))
    chosen = routed_by_hand(q, k, shape, region, 2)
    padded = [-(-size // step) * step for size, step in zip(shape, region, strict=True)]
    grids = [torch.zeros(2, 2, *padded, 4, dtype=torch.float64) for _ in range(3)]
    for grid, x in zip(grids, (q, k, v), strict=True):
        grid[:, :, : shape[0], : shape[1]] = x.unflatten(2, shape)
    cells = cells_by_hand(tuple(padded), region)
    truth = torch.zeros_like(grids[0]).flatten(2, 3)
    flat_q, flat_k, flat_v = (grid.flatten(2, 3) for grid in grids)
    scale = 8**-0.5
    for b in range(2):
        for mine, places in enumerate(cells):
            keys = [one for other in range(len(cells)) if chosen[b, mine, other] for one in cells[other]]
            weights = (scale * flat_q[b][:, places] @ flat_k[b][:, keys].mT).softmax(-1)
            truth[b][:, places] = weights @ flat_v[b][:, keys]
    truth = truth.unflatten(2, padded)[:, :, : shape[0], : shape[1]].flatten(2, 3)
    pattern = biformer_routing(q, k, shape, region, 2)
    sink = pattern.padding_sink()
    assert (sink is None) == (math.prod(padded) == 70)
    for backend in ("reference", "torch"):
        out = attention(q, k, v, pattern, scale=scale, sink=sink, backend=backend)
        torch.testing.assert_close(out, truth)


def test_biformer_of_all_regions_is_full_attention() -> None:
    q, k, v = (draw(1, 2, 60, 8, seed=seed) for seed in range(3))
    pattern = biformer_routing(q, k, (6, 10), (4, 3), 8)
    torch.testing.assert_close(attention(q, k, v, pattern), attention(q, k, v, Full()))


def test_biformer_trains_through_attention_alone() -> None:
    q, k, v = (draw(1, 1, 12, 2, seed=seed).requires_grad_() for seed in range(3))
    pattern = biformer_routing(q, k, (3, 4), 2, 2)
    assert not pattern.map.requires_grad
    assert torch.autograd.gradcheck(lambda *x: attention(*x, pattern, backend="torch"), (q, k, v))


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 1 / 3, 0.5, 0.9, 1.0])
def test_duo_splits_heads_at_the_quantile(sparsity: float) -> None:
    alpha = draw(3, 8).sigmoid()
    order = sorted(alpha.flatten().tolist())
    place = sparsity * (len(order) - 1)
    low = int(place)
    limit = order[low] + (place - low) * (order[min(low + 1, len(order) - 1)] - order[low])
    full = duo_heads(alpha, sparsity=sparsity)
    for layer in range(3):
        for head in range(8):
            want = {0.0: True, 1.0: False}.get(sparsity, float(alpha[layer, head]) >= limit)
            assert bool(full[layer, head]) == want
    assert abs(float((~full).double().mean()) - sparsity) <= 1 / 24


def test_duo_keeps_gates_above_the_threshold() -> None:
    alpha = torch.tensor([0.2, 0.5, 0.7, 0.5])
    assert duo_heads(alpha, threshold=0.5).tolist() == [False, False, True, False]
    assert duo_heads(alpha, sparsity=0.5).tolist() == [False, True, True, True]  # equal gates stay together


def test_duo_pattern_repeats_heads_of_a_group_and_is_causal() -> None:
    pattern = duo_pattern(torch.tensor([True, False]), sinks=2, recent=3, groups=2)
    assert pattern == PerHead(Causal(), Causal(), Streaming(2, 3), Streaming(2, 3))
    seen = pattern.mask(12, 12)
    assert not (seen & ~Causal().mask(12, 12)).any()
    moved = duo_pattern(torch.tensor([True, False]), sinks=2, recent=3, groups=2, offset=9)
    assert torch.equal(moved.mask(3, 12), seen[:, 9:])


def test_duo_output_does_not_see_the_future() -> None:
    q, k, v = (draw(1, 4, 40, 8, seed=seed) for seed in range(3))
    pattern = duo_pattern(torch.tensor([True, False]), sinks=2, recent=5, groups=2)
    k, v = k[:, :2], v[:, :2]
    later_k, later_v = k.clone(), v.clone()
    later_k[:, :, 25:] += 3
    later_v[:, :, 25:] -= 3
    before, after = attention(q, k, v, pattern), attention(q, later_k, later_v, pattern)
    assert torch.equal(before[:, :, :25], after[:, :, :25])
    assert not torch.allclose(before[:, :, 25:], after[:, :, 25:])


def test_duo_mix_of_the_training_phase() -> None:
    q, k, v = (draw(2, 4, 30, 8, seed=seed) for seed in range(3))
    k, v = k[:, :2], v[:, :2]
    alpha = torch.tensor([0.3, 1.2], dtype=torch.float64, requires_grad=True)
    more, less = duo_gates(alpha, 2)
    out = attention(q, k, v, Causal(), gate=more) + attention(q, k, v, Streaming(2, 6), gate=less)
    full, part = (
        ((q @ k.repeat_interleave(2, 1).mT * 8**-0.5).masked_fill(~one.mask(30, 30), -torch.inf)).softmax(-1)
        @ v.repeat_interleave(2, 1)
        for one in (Causal(), Streaming(2, 6))
    )
    weight = torch.tensor([0.3, 0.3, 1.0, 1.0], dtype=torch.float64).view(1, -1, 1, 1)
    torch.testing.assert_close(out, weight * full + (1 - weight) * part)
    (grad,) = torch.autograd.grad(out.sum(), alpha)
    torch.testing.assert_close(grad, torch.stack([(full - part)[:, :2].sum(), torch.zeros_like(grad[0])]))


def test_duo_of_extreme_gates_is_its_pattern() -> None:
    q, k, v = (draw(1, 2, 30, 8, seed=seed) for seed in range(3))
    alpha = torch.tensor([1.0, 0.0], dtype=torch.float64)
    more, less = duo_gates(alpha)
    mixed = attention(q, k, v, Causal(), gate=more) + attention(q, k, v, Streaming(2, 6), gate=less)
    pattern = duo_pattern(duo_heads(alpha, threshold=0.5), sinks=2, recent=6)
    torch.testing.assert_close(mixed, attention(q, k, v, pattern))


def test_vmoba_partition_turns_with_the_layer() -> None:
    blocks = {"time": 2, "space": (4, 3), "both": (2, 2, 6)}
    regions = [vmoba_region((6, 8, 12), layer, **blocks) for layer in range(5)]
    assert regions == [(2, 8, 12), (6, 4, 3), (2, 2, 6), (2, 8, 12), (6, 4, 3)]
    pattern = Regions((6, 8, 12), regions[1], torch.ones(8, 8, dtype=torch.bool))
    assert pattern.cells.members().sort(1).values.tolist() == cells_by_hand((6, 8, 12), (6, 4, 3))


def scores_by_hand(q: Tensor, k: Tensor, cells: list[list[int]]) -> Tensor:
    """Products of queries and block means, (B, H, L, blocks)."""
    means = torch.stack([k[:, :, places].mean(2) for places in cells], 2)
    return torch.einsum("bhqd,bhnd->bhqn", q, means)


def pools_by_hand(pool: str, batch: int, heads: int, length: int, blocks: int) -> list[list[tuple[int, ...]]]:
    """Entries (b, h, q, n) that compete with each other."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for b in range(batch):
        for h in range(heads):
            for q in range(length):
                for n in range(blocks):
                    key = {"head": (b, h), "query": (b, h, q), "block": (b, n), "all": (b,)}[pool]
                    found.setdefault(key, []).append((b, h, q, n))
    return list(found.values())


@pytest.mark.parametrize("pool", ["head", "query", "block", "all"])
@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.6, 1.0])
def test_vmoba_takes_pairs_up_to_the_threshold(pool: str, threshold: float) -> None:
    shape, region = (2, 4, 5), (1, 2, 3)
    q, k = draw(2, 2, 40, 4), draw(2, 2, 40, 4, seed=1)
    cells = cells_by_hand(shape, region)
    scores = scores_by_hand(q, k, cells)
    chosen = torch.zeros(scores.shape, dtype=torch.bool)
    for entries in pools_by_hand(pool, 2, 2, 40, len(cells)):
        values = [float(scores[one]) for one in entries]
        weight = [(one - min(values)) / (max(values) - min(values)) for one in values]
        own = [entries[i][2] in cells[entries[i][3]] for i in range(len(entries))]
        total = sum(weight) + 1e-6
        reached = sum(one for one, mine in zip(weight, own, strict=True) if mine) / total
        rest = sorted((i for i in range(len(entries)) if not own[i]), key=lambda i: -weight[i])
        for place, i in enumerate(rest):
            if place and reached >= threshold:
                break
            chosen[entries[i]] = True
            reached += weight[i] / total
        for i, one in enumerate(entries):
            chosen[one] |= own[i]
    pattern = vmoba_selection(q, k, shape, region, threshold=threshold, pool=pool)  # type: ignore[arg-type]
    assert torch.equal(pattern.map, chosen)


@pytest.mark.parametrize("pool", ["head", "query", "all"])
def test_vmoba_takes_the_largest_pairs(pool: str) -> None:
    shape, region, topk = (2, 4, 5), (1, 2, 3), 3
    q, k = draw(2, 2, 40, 4), draw(2, 1, 40, 4, seed=1)
    cells = cells_by_hand(shape, region)
    scores = scores_by_hand(q, k.expand_as(q), cells)
    chosen = torch.zeros(scores.shape, dtype=torch.bool)
    for entries in pools_by_hand(pool, 2, 2, 40, len(cells)):
        own = [one for one in entries if one[2] in cells[one[3]]]
        rest = sorted(set(entries) - set(own), key=lambda one: -float(scores[one]))
        for one in own + rest[: topk * len(entries) // len(cells) - len(own)]:
            chosen[one] = True
    pattern = vmoba_selection(q, k, shape, region, threshold=None, topk=topk, pool=pool)  # type: ignore[arg-type]
    assert torch.equal(pattern.map, chosen)


def test_vmoba_attention_is_that_of_the_selected_blocks() -> None:
    shape, region = (4, 4, 4), (2, 2, 2)
    q, k, v = (draw(1, 2, 64, 8, seed=seed) for seed in range(3))
    pattern = vmoba_selection(q, k, shape, region)
    assert 0 < pattern.density(64, 64) < 1
    cells = cells_by_hand(shape, region)
    truth = torch.zeros_like(v)
    for h in range(2):
        for place in range(64):
            keys = [one for n, cell in enumerate(cells) if pattern.map[0, h, place, n] for one in cell]
            truth[0, h, place] = (q[0, h, place] @ k[0, h, keys].mT * 8**-0.5).softmax(-1) @ v[0, h, keys]
    for backend in ("reference", "torch"):
        torch.testing.assert_close(attention(q, k, v, pattern, backend=backend), truth)
    again = decode(*encode(pattern))
    assert torch.equal(again.mask(64, 64), pattern.mask(64, 64))


def test_vmoba_of_everything_is_full_attention() -> None:
    q, k, v = (draw(1, 2, 60, 8, seed=seed) for seed in range(3))
    pattern = vmoba_selection(q, k, (3, 4, 5), (2, 2, 2), threshold=None, topk=12)
    torch.testing.assert_close(attention(q, k, v, pattern), attention(q, k, v))


def test_vmoba_of_one_key_everywhere_takes_all() -> None:
    q, k = draw(1, 1, 16, 4), torch.ones(1, 1, 16, 4, dtype=torch.float64)
    assert vmoba_selection(q, k, (4, 4), 2, pool="query").map.all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: biformer_routing(q, q, (4, 4), 2, 5), "topk=5 must be 1 to 4"),
        (lambda q: biformer_routing(q, q, (4, 5), 2, 1), "there are 16 queries"),
        (lambda q: biformer_routing(q, q[:, :, :, :3], (4, 4), 2, 1), r"k of shape \(1, 3, 16, 3\)"),
        (lambda q: biformer_routing(q, q[:, :2], (4, 4), 2, 1), "divisor of q's 3 heads"),
        (lambda q: biformer_region((4, 4), 5), "windows=5"),
        (lambda q: duo_heads(q, threshold=0.5, sparsity=0.5), "give one of threshold and sparsity"),
        (lambda q: duo_heads(q, sparsity=1.5), "sparsity=1.5"),
        (lambda q: duo_pattern(q[0, 0, 0], sinks=1, recent=1), "full must be bool"),
        (lambda q: duo_gates(q), "alpha of shape"),
        (lambda q: vmoba_region((2, 2, 2), -1, time=1, space=(1, 1), both=(1, 1, 1)), "layer=-1"),
        (lambda q: vmoba_region((2, 2, 2), 0, time=3, space=(1, 1), both=(1, 1, 1)), "region=3"),
        (lambda q: vmoba_selection(q, q, (4, 4), 2, topk=1), "give one of threshold and topk"),
        (lambda q: vmoba_selection(q, q, (4, 4), 2, threshold=1.1), "threshold=1.1"),
        (lambda q: vmoba_selection(q, q, (4, 4), 2, threshold=None, topk=9), "topk=9"),
        (lambda q: vmoba_selection(q, q, (4, 4), 2, threshold=None, topk=1, pool="block"), "pool='block'"),
    ],
)
def test_bad_input_is_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(draw(1, 3, 16, 4))
