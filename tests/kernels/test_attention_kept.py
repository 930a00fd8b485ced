"""What attention in windows keeps for its backward, and how it moves rows of many batch entries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphrec.kernels import RelativeBias, attention, split_heads
from graphrec.kernels.attention import foldings
from graphrec.kernels.patterns import Windows

SHIFTED = Windows((14, 14), (7, 7), (3, 3), border="-100")


def kept(run: Callable[[], Tensor]) -> int:
    """Numbers in the storages that autograd keeps."""
    found: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(found.values())


def test_windows_keep_the_table_and_neither_bias_nor_mask() -> None:
    heads, packed = 8, torch.randn(1, 196, 3 * 8 * 4, requires_grad=True)
    table = torch.randn(heads, 13 * 13, requires_grad=True)

    def run() -> Tensor:
        return attention(*split_heads(packed, heads), SHIFTED, bias=RelativeBias(table, (7, 7)))

    probabilities, places = heads * 4 * 49**2, 49**2
    assert kept(run) == packed.numel() + table.numel() + probabilities + places


@pytest.mark.parametrize("pattern", [SHIFTED, Windows((14, 14), (14, 14))], ids=["cut", "whole"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("side_by_side", [True, False])
def test_backward_leaves_what_is_kept_alone(pattern: Windows, batch: int, side_by_side: bool) -> None:
    """Gradients are written over what the backward has cut out, never over the inputs themselves."""
    packed = torch.randn(batch, 196, 3 * 2 * 4, requires_grad=True)
    table = torch.randn(2, 27 * 27, requires_grad=True)
    parts = split_heads(packed, 2) if side_by_side else [one.contiguous() for one in split_heads(packed, 2)]
    out = attention(*parts, pattern, bias=RelativeBias(table, (14, 14)))
    grad = torch.randn_like(out)
    first, given = torch.autograd.grad(out, (packed, table), grad, retain_graph=True), grad.clone()
    torch.testing.assert_close(torch.autograd.grad(out, (packed, table), grad), first, rtol=0, atol=0)
    torch.testing.assert_close(grad, given, rtol=0, atol=0)


def test_second_derivatives_of_a_table() -> None:
    pattern, size = Windows((4, 4), (2, 2), (1, 1), border="-100"), (1, 16, 3 * 2 * 2)
    packed = torch.randn(size, dtype=torch.float64, requires_grad=True)
    table = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)

    def run(packed: Tensor, table: Tensor) -> Tensor:
        return attention(*split_heads(packed, 2), pattern, bias=RelativeBias(table, (2, 2)))

    assert torch.autograd.gradgradcheck(run, (packed, table), fast_mode=True)


def test_windows_without_a_term_keep_no_probabilities() -> None:
    packed = torch.randn(2, 196, 3 * 8 * 4, requires_grad=True)
    assert kept(lambda: attention(*split_heads(packed, 8), Windows((14, 14), (7, 7)))) == packed.numel()


@pytest.mark.parametrize("side_by_side", [True, False])
@pytest.mark.parametrize("at_once", [1, 100, 1300, 1 << 15])
def test_rows_of_many_entries(monkeypatch: pytest.MonkeyPatch, at_once: int, side_by_side: bool) -> None:
    """Pieces of one batch entry, of some with a shorter last piece, and of all are the same."""
    monkeypatch.setattr(foldings, "_AT_ONCE", at_once)
    monkeypatch.setattr(foldings, "_rows", foldings._rows.__wrapped__)
    batch, heads, length, dim = 5, 3, 36, 2
    folding, groups = Windows((6, 6), (3, 3), (1, 1)).folding(length), torch.Size((4, 9))
    assert folding is not None
    packed = torch.randn(batch, length, 3, heads, dim)
    parts = packed.permute(2, 0, 3, 1, 4).unbind(0)
    given = parts if side_by_side else [one.clone() for one in parts]
    found = foldings.cut(given, folding, groups)
    for one, part in zip(found, parts, strict=True):
        torch.testing.assert_close(one, foldings.fold(part, folding, groups).flatten(0, 2), rtol=0, atol=0)
    back = foldings.paste(torch.stack(list(found)), folding, groups, (batch, heads, length))
    for one, part in zip(back, parts, strict=True):
        torch.testing.assert_close(one, part, rtol=0, atol=0)
