"""Counting attention instead of computing it."""

from __future__ import annotations

import pytest
import torch

from graphrec.kernels import Source, attention, joint_attention
from graphrec.kernels.patterns import Causal, Full, Neighborhood, Pattern, Regions, Windows
from graphrec.kernels.tally import tallying, visible_pairs


@pytest.mark.parametrize(
    ("pattern", "pairs"),
    [
        (Full(), 16 * 16),
        (Causal(), 16 * 17 // 2),
        (Windows((4, 4), 2), 16 * 4),
        (Neighborhood((4, 4), 3), 16 * 9),
        (Regions((4, 4), 2, torch.eye(4, dtype=torch.bool).expand(3, 2, 4, 4)), 3 * 2 * 16 * 4),
    ],
)
def test_visible_pairs(pattern: Pattern, pairs: int) -> None:
    assert visible_pairs(pattern, 16, 16) == pairs


def test_many_pairs_are_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphrec.kernels.tally._AT_ONCE", 100)
    assert visible_pairs(Causal(), 37, 37) == 37 * 38 // 2


def test_two_products_per_visible_pair_and_channel() -> None:
    q, k, v = torch.randn(2, 6, 16, 4), torch.randn(2, 3, 16, 4), torch.randn(2, 3, 16, 5)
    with tallying() as tally:
        out, lse = attention(q, k, v, Causal(), return_lse=True)
    assert tally.multiplications == 2 * 6 * 136 * (4 + 5)
    assert out.shape == (2, 6, 16, 5)
    assert lse.shape == (2, 6, 16)
    assert not out.any()
    assert attention(q, k, v, Causal()).any(), "outside of it attention is computed"


def test_sources_add_up_and_weights_after_the_softmax_cost_a_product() -> None:
    q, k = torch.randn(1, 2, 16, 4), torch.randn(1, 2, 8, 4)
    plus = torch.randn(1, 2, 16, 16)
    with tallying() as tally:
        joint_attention(q, [Source(q, q, Causal(), plus=plus), Source(k, k)])
    assert tally.multiplications == 2 * (136 * (4 + 4 + 4) + 16 * 8 * (4 + 4))


def test_heads_of_a_pattern_that_tells_them_apart_count_once() -> None:
    q = torch.randn(3, 2, 16, 4)
    pattern = Regions((4, 4), 2, torch.eye(4, dtype=torch.bool).expand(3, 2, 4, 4))
    with tallying() as tally:
        attention(q, q, q, pattern)
    assert tally.multiplications == 3 * 2 * 16 * 4 * (4 + 4)
