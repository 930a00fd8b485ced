"""Equal formulations agree, and drawn grids, biases and lists keep the error budget and pass gradcheck."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget
from torch import Tensor

from graphrec.kernels import RelativeBias, attention
from graphrec.kernels.attention import groups
from graphrec.kernels.patterns import (
    BlockLists,
    Blocks,
    Causal,
    Full,
    Halo,
    KeyPadding,
    Neighborhood,
    Packed,
    Pattern,
    Segments,
    Streaming,
    Strided,
    Tokens,
    Window,
    Windows,
    stripes,
)

DIMS = (1, 6, 10, 16, 20, 30, 32, 53, 64, 77, 96, 128)

EQUAL: list[tuple[Pattern, Pattern, int]] = [
    (Neighborhood((7, 7), 7), Full(), 49),
    (Neighborhood((65,), 65), Full(), 65),
    (Neighborhood((6, 9), 3, stride=3), Windows((6, 9), 3), 54),
    (Neighborhood((63,), 63, causal=True), Causal(), 63),
    (Neighborhood((20,), 5, causal=True), Window(4, 0), 20),
    (Neighborhood((12, 8), 2, dilation=(6, 4)), Windows((12, 8), 2, order="grid"), 96),
    (Streaming(0, 65), Causal(), 65),
    (Streaming(65, 1), Causal(), 65),
    (Streaming(3, 62), Causal(), 65),
    (Streaming(0, 5), Window(4, 0), 49),
    (Window(49, 0), Causal(), 49),
    (Window(197, 197), Full(), 197),
    (Strided(1) & Causal(), Causal(), 63),
    (Segments((65,)), Full(), 65),
    (Packed((0, 20, 49)), Segments((20, 29)), 49),
    (Halo((6, 6), 3, 0), Windows((6, 6), 3), 36),
    (Halo((7, 7), 7, 3), Full(), 49),
    (Windows((7, 9), (7, 9)), Full(), 63),
    (stripes((7, 9), 9, 0), Full(), 63),
    (Windows((8, 8), 4, border="zero"), Windows((8, 8), 4), 64),
    (Tokens(torch.arange(49).expand(49, 49)), Full(), 49),
    (Blocks(torch.ones(4, 4, dtype=torch.bool), 16), Full(), 63),
    (Blocks(torch.ones(4, 4, dtype=torch.bool).tril(), 16) & Causal(), Causal(), 63),
    (BlockLists(torch.arange(4).expand(4, 4), 16), Full(), 63),
    (KeyPadding(torch.ones(2, 65, dtype=torch.bool)), Full(), 65),
    (Causal() & Window(5, 5), Window(5, 0), 63),
    (Window(3, 0) | Window(0, 3), Window(3, 3), 65),
]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("one", "other", "length"), EQUAL, ids=repr)
def test_equal_patterns(one: Pattern, other: Pattern, length: int) -> None:
    torch.manual_seed(0)
    q, k, v = (draw(2, 2, length, 5).requires_grad_() for _ in range(3))
    weights = draw(2, 2, length, 5)
    for backend in ("reference", "torch"):
        found, want = (
            attention(q, k, v, pattern, return_lse=True, backend=backend) for pattern in (one, other)
        )
        torch.testing.assert_close(found, want)
        grads = [torch.autograd.grad((x[0] * weights).sum() + x[1].sum(), (q, k, v)) for x in (found, want)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("size", [1, 100, 5_000, 1 << 30])
@pytest.mark.parametrize(
    "pattern",
    [Neighborhood((9, 10), 3), Windows((9, 10), (3, 5)), Window(7, 3), KeyPadding(torch.rand(3, 90) < 0.8)],
    ids=repr,
)
def test_the_size_of_pieces_does_not_matter(
    pattern: Pattern, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    given = [draw(3, 5, 90, 4).requires_grad_() for _ in range(3)]
    bias = draw(3, 5, 90, 90).requires_grad_()
    results = []
    for pieces in (groups._PIECE, size):
        monkeypatch.setattr(groups, "_PIECE", pieces)
        out, lse = attention(*given, pattern, bias=bias, return_lse=True, backend="torch")
        results.append((out, lse, *torch.autograd.grad(out.square().sum() + lse.sum(), [*given, bias])))
    torch.testing.assert_close(results[0], results[1])


def test_shared_key_heads_are_repeated_heads() -> None:
    torch.manual_seed(0)
    q, k, v = draw(2, 6, 49, 4), draw(2, 2, 49, 4), draw(2, 2, 49, 3)
    pattern = Neighborhood((7, 7), 3)
    wide = [one.repeat_interleave(3, 1) for one in (k, v)]
    torch.testing.assert_close(attention(q, k, v, pattern), attention(q, *wide, pattern))


def test_a_table_is_the_dense_bias_that_it_describes() -> None:
    torch.manual_seed(0)
    pattern = Windows((8, 8), 4, shift=2)
    table = draw(2, 49).requires_grad_()
    q, k, v = (draw(1, 2, 64, 4) for _ in range(3))
    held = RelativeBias(table, (4, 4))
    dense = held.dense(pattern, 64, 64).unsqueeze(0)
    found, want = (attention(q, k, v, pattern, bias=bias) for bias in (held, dense))
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(*(torch.autograd.grad(x.square().sum(), table)[0] for x in (found, want)))


def test_order_of_keys_does_not_matter() -> None:
    torch.manual_seed(0)
    q, k, v = draw(1, 2, 30, 4), draw(1, 2, 40, 4), draw(1, 2, 40, 3)
    valid, order = torch.rand(1, 40) < 0.7, torch.randperm(40)
    found = attention(q, k[:, :, order], v[:, :, order], KeyPadding(valid[:, order]))
    torch.testing.assert_close(found, attention(q, k, v, KeyPadding(valid)))


def grids() -> st.SearchStrategy[Pattern]:
    """Grid patterns of one to three axes, of up to some two hundred positions."""

    def neighborhood(shape: list[int], parts: list[float], causal: bool) -> Pattern:
        kernel = [max(1, round(size * part)) for size, part in zip(shape, parts, strict=False)]
        dilation = [
            1 + int(size // one > 1 and part < 0.3)
            for size, one, part in zip(shape, kernel, parts, strict=False)
        ]
        return Neighborhood(tuple(shape), tuple(kernel), tuple(dilation), 1, causal)

    def windows(shape: list[int], parts: list[float], border: str) -> Pattern:
        window = [max(1, round(size * part)) for size, part in zip(shape, parts, strict=False)]
        shift = [size // 2 for size in window]
        return Windows(tuple(shape), tuple(window), tuple(shift), border=border)  # type: ignore[arg-type]

    def halo(shape: list[int], parts: list[float], rim: int) -> Pattern:
        block = [max(1, round(size * part)) for size, part in zip(shape, parts, strict=False)]
        return Halo(tuple(shape), tuple(block), rim)

    shape = st.sampled_from([[1], [2], [49], [197], [7, 7], [7, 9], [13, 5], [1, 63], [3, 4, 5]])
    parts = st.lists(st.floats(0.1, 1), min_size=3, max_size=3)
    return st.one_of(
        st.builds(neighborhood, shape, parts, st.booleans()),
        st.builds(windows, shape, parts, st.sampled_from(["mask", "zero"])),
        st.builds(halo, shape, parts, st.integers(0, 2)),
    )


def length_of(pattern: Pattern) -> int:
    return torch.Size(pattern.shape).numel()  # type: ignore[attr-defined]


def runner(
    pattern: Pattern, backend: str, window: tuple[int, ...] | None
) -> Callable[..., tuple[Tensor, ...]]:
    def run(q: Tensor, k: Tensor, v: Tensor, *table: Tensor) -> tuple[Tensor, ...]:
        bias = None if window is None else RelativeBias(table[0], window)
        return attention(q, k, v, pattern, bias=bias, return_lse=True, backend=backend)

    return run


@settings(max_examples=40)
@given(data=st.data())
def test_drawn_grids(data: st.DataObject) -> None:
    pattern = data.draw(grids())
    length = length_of(pattern)
    batch, k_heads, share = (data.draw(st.integers(1, 2)) for _ in range(3))
    dim, v_dim = data.draw(st.sampled_from(DIMS)), data.draw(st.sampled_from(DIMS))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    tensors = [
        draw(batch, length, share * k_heads, dim).transpose(1, 2),
        draw(dim, batch, k_heads, length).permute(1, 2, 3, 0),
        draw(batch, k_heads, length, 2 * v_dim)[..., ::2],
    ]
    window = None
    if data.draw(st.booleans()):
        window = tuple(far + 1 for far in pattern.extent(length, length))
        tensors.append(draw(1, torch.Size(2 * one - 1 for one in window).numel()))
    run, plain = (runner(pattern, backend, window) for backend in ("torch", "reference"))
    assert_within_budget(run, plain, tensors)


GRADCHECK: list[tuple[Pattern, int, int]] = [
    (Full(), 3, 5),
    (Causal(offset=-1), 4, 6),
    (Window(1, 2), 130, 130),
    (Neighborhood((6, 7), 3), 42, 42),
    (Neighborhood((5, 6), 3, dilation=(1, 2)), 30, 30),
    (Windows((6, 6), 3), 36, 36),
    (Windows((6, 6), 3, shift=1, border="-100"), 36, 36),
    (Windows((5, 6), 4, border="zero"), 30, 30),
    (Halo((6, 6), 2, 1), 36, 36),
    (Tokens(torch.tensor([[0, 2], [-1, -1], [1, -1]])), 3, 4),
    (BlockLists(torch.tensor([[0, 1], [2, -1], [-1, -1]]), 2), 6, 6),
    (KeyPadding(torch.tensor([[True, False, True, True], [False] * 4])), 3, 4),
]


@pytest.mark.parametrize(("pattern", "q_len", "k_len"), GRADCHECK, ids=repr)
def test_gradcheck(pattern: Pattern, q_len: int, k_len: int) -> None:
    torch.manual_seed(0)
    batch = max(pattern.batch, 1)
    given = [draw(batch, 2, q_len, 3), draw(batch, 1, k_len, 3), draw(batch, 1, k_len, 2)]
    given += [draw(1, 2, q_len, k_len), draw(1, 1, q_len, k_len), draw(1, 2, q_len, k_len)]
    leaves = [one.requires_grad_() for one in given]

    def run(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor, times: Tensor, plus: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, lse = attention(
            q, k, v, pattern, bias=bias, times=times, plus=plus, return_lse=True, backend="torch"
        )
        return out, lse.masked_fill(lse == -torch.inf, 0)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_one_compiled_function_for_maps_of_several_sizes() -> None:
    """From the second size on Dynamo traces sizes as symbols; a pattern and its plan need the numbers."""

    def run(x: Tensor, table: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        q = x.flatten(1, 2).unsqueeze(1)
        bias = RelativeBias(table, (3, 3))
        near = attention(q, q, q, Neighborhood((height, width), 3), bias=bias)
        return near + attention(q, q, q, Windows((height, width), (height, 2)))

    compiled, table = torch.compile(run, fullgraph=True, backend="eager"), torch.randn(1, 25)
    for size in ((6, 8), (8, 10)):
        x = torch.randn(2, *size, 4)
        torch.testing.assert_close(compiled(x, table), run(x, table))


def test_a_bias_on_a_map_so_small_that_all_pairs_are_computed_compiles_whole() -> None:
    def run(q: Tensor, table: Tensor) -> Tensor:
        return attention(q, q, q, Neighborhood((3, 4), 3), bias=RelativeBias(table, (3, 3)))

    q, table = torch.randn(2, 1, 12, 4), torch.randn(1, 25)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(run, backend=backend)(q, table), run(q, table))
    assert len(graphs) == 1
