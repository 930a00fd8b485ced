"""Compiling, exporting, autocast and checkpointing go through the operators; explain tells what would run."""

from __future__ import annotations

import pytest
import torch
from kernel_tools import distance
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import CSR, RelativeBias, attention, edge_softmax, linear_attention, scan, spmm
from graphrec.kernels.patterns import (
    BlockLists,
    Causal,
    Global,
    KeyPadding,
    Neighborhood,
    Packed,
    Pattern,
    Tokens,
    Window,
    Windows,
)

PATTERNS = [
    Windows((8, 8), 4, shift=2),
    Windows((8, 8), 4, shift=2, border="-100"),
    Neighborhood((8, 8), 3),
    Window(3, 3) | Global(1),
    Packed((0, 20, 64)) & Causal(),
    Tokens(torch.arange(64 * 3).view(64, 3) % 64),
    BlockLists(torch.tensor([[0, 1], [1, -1]]), 32) & Causal(),
    KeyPadding(torch.arange(64).view(1, 64) < 50),
]


class Block(torch.nn.Module):
    """Attention with a learned relative bias where the pattern measures distances on the grid."""

    def __init__(self, pattern: Pattern) -> None:
        super().__init__()
        self.pattern = pattern
        grid = len(pattern.extent(64, 64)) == 2
        self.window = tuple(far + 1 for far in pattern.extent(64, 64)) if grid else None
        if self.window is not None:
            self.table = torch.nn.Parameter(
                torch.randn(2, torch.Size(2 * one - 1 for one in self.window).numel())
            )

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = None if self.window is None else RelativeBias(self.table, self.window)
        return attention(q, k, v, self.pattern, bias=bias).sin()


def tensors() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, 64, 8, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_compiles_into_one_graph(pattern: Pattern) -> None:
    torch._dynamo.reset()
    block, given = Block(pattern), tensors()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    found, want = compiled(*given), block(*given)
    torch.testing.assert_close(found, want)
    for one, other in zip(*(torch.autograd.grad(out.sum(), given) for out in (found, want)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_pattern_made_inside_the_graph() -> None:
    torch._dynamo.reset()

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q, k, v, Windows((8, 8), 4, border="zero", shift=1))

    given = tensors()
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(*given), run(*given))


@pytest.mark.parametrize("pattern", PATTERNS[:4], ids=repr)
def test_exports(pattern: Pattern) -> None:
    block, given = Block(pattern), [one.detach() for one in tensors()]
    exported = torch.export.export(block, tuple(given))
    torch.testing.assert_close(exported.module()(*given), block(*given))


def test_exports_a_pattern_that_no_call_has_used() -> None:
    block, given = (
        Block(Windows((8, 6), 2, shift=1, border="-100")),
        [one[:, :, :48].detach() for one in tensors()],
    )
    exported = torch.export.export(block, tuple(given))
    torch.testing.assert_close(exported.module()(*given), block(*given))


@pytest.mark.parametrize("pattern", PATTERNS[:4], ids=repr)
def test_runs_on_the_meta_device(pattern: Pattern) -> None:
    given = tensors()
    found = Block(pattern).to("meta")(*(one.to("meta") for one in given))
    assert found.shape == Block(pattern)(*given).shape


def test_other_operators_compile() -> None:
    torch._dynamo.reset()
    q, k, v = tensors()
    a, b = torch.rand(2, 20, 3, requires_grad=True), torch.randn(2, 20, 3, requires_grad=True)

    def run(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return linear_attention(q, k, v).sum() + scan(a, b).sum()

    found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(q, k, v, a, b), run(q, k, v, a, b)
    torch.testing.assert_close(found, want)
    for one, other in zip(*(torch.autograd.grad(out, (q, a)) for out in (found, want)), strict=True):
        torch.testing.assert_close(one, other)


def test_graph_operators_compile() -> None:
    torch._dynamo.reset()
    graph = CSR.from_edges(torch.arange(30) % 9, torch.arange(30) % 8, 8, 9)[0]
    assert graph.transpose[0].rows == 9  # the backward needs it, and a compiled graph cannot make it
    x, weight = torch.randn(9, 4, requires_grad=True), torch.randn(30, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return spmm(graph, x, edge_softmax(graph, weight)).sin()

    found, want = torch.compile(run, fullgraph=True, backend="aot_eager")(x, weight), run(x, weight)
    torch.testing.assert_close(found, want)
    for one, other in zip(
        *(torch.autograd.grad(out.sum(), (x, weight)) for out in (found, want)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_inference_first_then_training() -> None:
    """What a call without gradients leaves behind serves a call with them, whatever the default device."""
    pattern, window = Windows((6, 10), (3, 5), shift=1, border="zero"), (3, 5)
    table = torch.randn(2, 45, requires_grad=True)
    q, k, v = (torch.randn(1, 2, 60, 4, requires_grad=True) for _ in range(3))
    graph = CSR(torch.tensor([0, 2, 3]), torch.tensor([0, 3, 1]), 4)
    x = torch.randn(4, 5, requires_grad=True)
    with torch.inference_mode():
        sums = spmm(graph, x, reduce="mean")
        assert graph.transpose[0].rows == 4
    with torch.inference_mode(), torch.device("meta"):
        before = attention(q, k, v, pattern, bias=RelativeBias(table, window))
    after = attention(q, k, v, pattern, bias=RelativeBias(table, window))
    torch.testing.assert_close(before, after)
    after.sum().backward()
    spmm(graph, x, reduce="mean").sum().backward()
    assert table.grad is not None
    assert x.grad is not None
    assert sums.shape == (2, 5)


def test_scan_is_registered() -> None:
    from graphrec.kernels.scan.torch import recurrence

    a, b, first = (torch.randn(*size, requires_grad=True) for size in ((2, 7, 3), (2, 7, 3), (2, 3)))
    torch.library.opcheck(recurrence.registered, (a, b, first))
    wide = [one.detach().double().requires_grad_() for one in (a, b, first)]
    assert torch.autograd.gradgradcheck(recurrence, wide)


def test_autocast_and_checkpointing() -> None:
    x = torch.randn(1, 64, 16, requires_grad=True)
    project = torch.nn.Linear(16, 48)

    def run(x: Tensor) -> Tensor:
        q, k, v = project(x).view(1, 64, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return attention(q, k, v, Windows((8, 8), 4, shift=2))

    plain = torch.autograd.grad(run(x).sum(), x)[0]
    again = torch.autograd.grad(checkpoint(run, x, use_reentrant=False).sum(), x)[0]
    assert torch.equal(plain, again)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(x)
    assert out.dtype == torch.bfloat16
    assert distance(out, run(x)) < 0.02
