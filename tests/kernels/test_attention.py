"""Attention in plain torch against the float64 formula: patterns, biases, odd shapes, gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import Case, assert_within_budget, case_id, cases
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import RelativeBias, attention, merge
from graphrec.kernels.patterns import (
    BlockLists,
    Causal,
    Full,
    Halo,
    KeyPadding,
    Neighborhood,
    Pattern,
    Segments,
    Streaming,
    Tokens,
    Window,
    Windows,
)

LENGTHS = (1, 2, 7, 49, 63, 65, 197)
DIMS = (1, 6, 10, 16, 20, 30, 32, 53, 64, 77, 96, 128)


def heads_of(pattern: Pattern) -> tuple[int, int]:
    """Query and key heads: grouped where the pattern does not fix them."""
    return (pattern.heads, pattern.heads) if pattern.heads > 1 else (4, 2)


def inputs(pattern: Pattern, q_len: int, k_len: int, dim: int = 10, v_dim: int = 7) -> list[Tensor]:
    heads, k_heads = heads_of(pattern)
    batch = max(pattern.batch, 2)
    sizes = ((heads, q_len, dim), (k_heads, k_len, dim), (k_heads, k_len, v_dim))
    return [torch.randn(batch, *size, dtype=torch.float64) for size in sizes]


def runner(
    pattern: Pattern, backend: str, make_bias: Callable[..., object], **options: object
) -> Callable[..., tuple[Tensor, ...]]:
    def run(q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        found = attention(q, k, v, pattern, bias=make_bias(*rest), backend=backend, **options)  # type: ignore[call-overload]
        return found if isinstance(found, tuple) else (found,)

    return run


def no_bias(*_: Tensor) -> None:
    return None


@pytest.mark.parametrize("kind", ["none", "dense", "table"])
@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_every_pattern_and_bias(case: Case, kind: str) -> None:
    torch.manual_seed(0)
    pattern, q_len, k_len = case
    given = inputs(pattern, q_len, k_len)
    make: Callable[..., object] = no_bias
    if kind == "dense":
        given.append(torch.randn(1, heads_of(pattern)[0], q_len, k_len, dtype=torch.float64))
        make = lambda bias: bias  # noqa: E731
    elif kind == "table":
        window = tuple(far + 1 for far in pattern.extent(q_len, k_len))
        columns = torch.Size(2 * one - 1 for one in window).numel()
        given.append(torch.randn(heads_of(pattern)[0], columns, dtype=torch.float64))
        make = lambda table: RelativeBias(table, window)  # noqa: E731
    lse = kind != "dense"
    assert_within_budget(
        runner(pattern, "torch", make, return_lse=lse),
        runner(pattern, "reference", make, return_lse=lse),
        given,
    )


@settings(max_examples=40)
@given(st.data())
def test_drawn_shapes(data: st.DataObject) -> None:
    q_len, k_len = data.draw(st.sampled_from(LENGTHS)), data.draw(st.sampled_from(LENGTHS))
    reach = st.integers(0, 40)
    pattern = data.draw(
        st.one_of(
            st.just(Full()),
            st.builds(Causal, st.integers(-3, 70)),
            st.builds(Window, reach, reach, st.integers(-3, 70)),
            st.builds(Streaming, st.integers(0, 5), st.integers(1, 30), st.integers(-3, 70)),
        )
    )
    batch, k_heads, share = (data.draw(st.integers(1, 3)) for _ in range(3))
    dim, v_dim = data.draw(st.sampled_from(DIMS)), data.draw(st.sampled_from(DIMS))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    q = torch.randn(batch, q_len, share * k_heads, dim, dtype=torch.float64).transpose(1, 2)
    k = torch.randn(dim, batch, k_heads, k_len, dtype=torch.float64).permute(1, 2, 3, 0)
    v = torch.randn(batch, k_heads, k_len, 2 * v_dim, dtype=torch.float64)[..., ::2]
    options = {"return_lse": data.draw(st.booleans()), "scale": data.draw(st.sampled_from([None, 1.0, 0.3]))}
    run, plain = (runner(pattern, backend, no_bias, **options) for backend in ("torch", "reference"))
    assert_within_budget(run, plain, [q, k, v])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "pattern", [Windows((14, 14), 7, shift=3), Neighborhood((14, 14), 7), Causal()], ids=repr
)
def test_low_precision_keeps_its_budget(pattern: Pattern, dtype: torch.dtype) -> None:
    torch.manual_seed(0)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        logits = (q * q.shape[-1] ** -0.5) @ k.mT
        return (logits.masked_fill(~pattern.mask(196, 196), -torch.inf).softmax(-1) @ v,)

    assert_within_budget(runner(pattern, "torch", no_bias), plain, inputs(pattern, 196, 196, 32, 32), dtype)


EMPTY_ROWS = [
    (Segments((3, 4), (0, 5)), 7, 5),
    (Causal(offset=-70), 80, 90),
    (Window(2, 2, offset=90), 20, 60),
    (Tokens(torch.full((5, 2), -1)), 5, 6),
    (BlockLists(torch.tensor([[-1], [0]]), 4), 8, 9),
    (KeyPadding(torch.zeros(2, 5, dtype=torch.bool)), 3, 5),
]


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("case", EMPTY_ROWS, ids=case_id)
def test_rows_that_see_nothing(case: Case, backend: str) -> None:
    pattern, q_len, k_len = case
    q, k, v = (one.requires_grad_() for one in inputs(pattern, q_len, k_len))
    empty = ~pattern.mask(q_len, k_len).any(-1)
    empty = empty.expand(q.shape[:3]) if empty.dim() == 1 else empty.expand(2, 4, q_len)
    out, lse = attention(q, k, v, pattern, return_lse=True, backend=backend)
    assert empty.any()
    assert not out[empty].any()
    assert (lse[empty] == -torch.inf).all()
    assert lse[~empty].isfinite().all()
    (out.sum() + lse[~empty].sum()).backward()
    for one in (q, k, v):
        assert one.grad is not None
        assert one.grad.isfinite().all()
    assert not q.grad[empty].any()  # type: ignore[index]


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("pattern", [Full(), Windows((4, 4), 2)], ids=repr)
def test_a_bias_of_minus_infinity_hides(pattern: Pattern, backend: str) -> None:
    q, k, v = (one.requires_grad_() for one in inputs(pattern, 16, 16))
    bias = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    bias[..., 3, :] = -torch.inf
    bias[..., 5, 5] = -torch.inf
    out = attention(q, k, v, pattern, bias=bias, backend=backend)
    out.sum().backward()
    assert not out[:, :, 3].any()
    assert q.grad is not None
    assert q.grad.isfinite().all()
    want = attention(
        q,
        k,
        v,
        pattern
        & Tokens(torch.stack([torch.arange(16).masked_fill(bias[0, 0, i].isinf(), -1) for i in range(16)])),
    )
    torch.testing.assert_close(out, want)


@pytest.mark.parametrize("length", [0, 1])
def test_tiny_lengths(length: int) -> None:
    q, k, v = torch.randn(2, 2, 3, 4), torch.randn(2, 2, length, 4), torch.randn(2, 2, length, 5)
    for backend in ("reference", "torch"):
        out, lse = attention(q, k, v, return_lse=True, backend=backend)
        assert out.shape == (2, 2, 3, 5)
        assert torch.equal(out, v.expand(2, 2, 3, 5)) if length else not out.any()
        assert lse.isfinite().all() if length else (lse == -torch.inf).all()
    assert attention(k, q, q, backend="torch").shape == (2, 2, length, 4)


@pytest.mark.parametrize(
    ("case", "batch"), [*((one, 0) for one in cases() if one[0].batch == 1), ((Full(), 0, 0), 2)], ids=str
)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_to_attend(case: Case, batch: int, training: bool) -> None:
    """An empty batch under every pattern, and nothing at all: an output of its shape, and gradients."""
    pattern, q_len, k_len = case
    heads = heads_of(pattern)[0]
    sizes = ((heads, q_len, 8), (heads, k_len, 8), (heads, k_len, 8), (heads, q_len, k_len))
    q, k, v, bias = (torch.zeros(batch, *size, requires_grad=training) for size in sizes)
    for options in ({}, {"bias": bias}, {"return_lse": True}, {"sink": torch.zeros(heads)}):
        found = attention(q, k, v, pattern, **options)  # type: ignore[call-overload]
        out = found[0] if isinstance(found, tuple) else found
        assert out.shape == (batch, heads, q_len, 8)
        if training:
            assert [one.shape for one in torch.autograd.grad(out.sum(), (q, k, v))] == [
                one.shape for one in (q, k, v)
            ]


GRADCHECK = [
    (Windows((4, 6), 2, shift=1, border="-100"), 24),
    (Windows((5, 4), 3, shift=1, border="zero"), 20),
    (Neighborhood((6, 5), 3), 30),
    (Halo((4, 4), 2, 1, border="zero"), 16),
    (Streaming(1, 3), 10),
]


@pytest.mark.parametrize(("pattern", "length"), GRADCHECK, ids=repr)
def test_gradients_by_finite_differences(pattern: Pattern, length: int) -> None:
    torch.manual_seed(0)
    window = tuple(far + 1 for far in pattern.extent(length, length))
    columns = torch.Size(2 * one - 1 for one in window).numel()
    sizes = ((1, 2, length, 3), (1, 1, length, 3), (1, 1, length, 2), (2, columns), (2,), (1, 2, length))
    leaves = [torch.randn(size, dtype=torch.float64).requires_grad_() for size in sizes]

    def run(
        q: Tensor, k: Tensor, v: Tensor, table: Tensor, sink: Tensor, gate: Tensor
    ) -> tuple[Tensor, Tensor]:
        bias = RelativeBias(table, window)
        return attention(q, k, v, pattern, bias=bias, sink=sink, gate=gate, return_lse=True, backend="torch")

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_zero_border_equals_padding_by_hand() -> None:
    """Windows of a zero-padded grid, computed by really padding keys and values, with a relative bias."""
    torch.manual_seed(0)
    height, width, window = 5, 6, 4
    q, k, v = (torch.randn(1, 2, height * width, 8, dtype=torch.float64) for _ in range(3))
    table = torch.randn(2, 49, dtype=torch.float64)
    pattern = Windows((height, width), window, border="zero")
    found = attention(q, k, v, pattern, bias=RelativeBias(table, (window, window)))

    def pad(x: Tensor) -> Tensor:
        return F.pad(x.view(1, 2, height, width, 8), (0, 0, 0, 2, 0, 3)).flatten(2, 3)

    whole = Windows((8, 8), window)
    want = attention(
        pad(q), pad(k), pad(v), whole, bias=RelativeBias(table, (window, window)), backend="reference"
    )
    torch.testing.assert_close(found, want.view(1, 2, 8, 8, 8)[:, :, :height, :width].flatten(2, 3))


def test_halo_with_zeros_equals_unfolding() -> None:
    """HaloNet's own way: pad, unfold a block's surroundings, attend over all of it, padding included."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 36, 4, dtype=torch.float64) for _ in range(3))
    found = attention(q, k, v, Halo((6, 6), 3, 1, border="zero"))
    want = torch.empty(6, 6, 4, dtype=torch.float64)
    keys, values = (F.pad(x.view(6, 6, 4), (0, 0, 1, 1, 1, 1)) for x in (k, v))
    for row in (0, 3):
        for column in (0, 3):
            near = [x[row : row + 5, column : column + 5].flatten(0, 1) for x in (keys, values)]
            block = q.view(6, 6, 4)[row : row + 3, column : column + 3]
            want[row : row + 3, column : column + 3] = (block @ near[0].mT * 0.5).softmax(-1) @ near[1]
    torch.testing.assert_close(found.view(6, 6, 4), want)


def test_relative_bias_follows_swin() -> None:
    """Swin's relative_position_index, built as its paper's code does, picks the same numbers."""
    window = 3
    grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    step = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + window - 1
    index = step[..., 0] * (2 * window - 1) + step[..., 1]
    table = torch.randn(2, (2 * window - 1) ** 2)
    found = RelativeBias(table, (window, window)).dense(Windows((window, window), window), 9, 9)
    assert torch.equal(found, table[:, index])


def test_merge_of_disjoint_parts_is_the_whole() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 5, dtype=torch.float64).requires_grad_() for _ in range(3))
    whole = attention(q, k, v, Causal(), return_lse=True)
    parts = [
        attention(q, k[:, :, part], v[:, :, part], Causal(offset=-start), return_lse=True)
        for start, part in ((0, slice(0, 4)), (4, slice(4, 9)))
    ]
    merged = merge([out for out, _ in parts], [lse for _, lse in parts])
    weights = torch.randn_like(whole[0])
    for one, other in zip(merged, whole, strict=True):
        torch.testing.assert_close(one, other)
    for leaf in (q, k, v):
        one, other = (
            torch.autograd.grad((out * weights).sum(), leaf, retain_graph=True)[0]
            for out in (merged[0], whole[0])
        )
        torch.testing.assert_close(one, other)
    empty = merge([torch.zeros(1, 1, 2, 3)] * 2, [torch.full((1, 1, 2), -torch.inf)] * 2)
    assert not empty[0].any()
    assert (empty[1] == -torch.inf).all()


def test_a_sink_is_one_more_key() -> None:
    q, k, v = (torch.randn(1, 2, 6, 4, dtype=torch.float64) for _ in range(3))
    sink = torch.randn(2, dtype=torch.float64)
    found = attention(q, k, v, Causal(), sink=sink)
    logits = (q @ k.mT / 2).masked_fill(~Causal().mask(6, 6), -torch.inf)
    logits = torch.cat([sink.view(1, 2, 1, 1).expand(1, 2, 6, 1), logits], -1)
    torch.testing.assert_close(found, logits.softmax(-1)[..., 1:] @ v)


def test_windows_without_shift_are_a_reshape() -> None:
    q, k, v = (torch.randn(2, 3, 64, 8) for _ in range(3))

    def cut(x: Tensor) -> Tensor:
        return x.view(2, 3, 2, 4, 2, 4, 8).transpose(3, 4).reshape(2, 3, 4, 16, 8)

    want = F.scaled_dot_product_attention(cut(q), cut(k), cut(v)).view(2, 3, 2, 2, 4, 4, 8).transpose(3, 4)
    torch.testing.assert_close(attention(q, k, v, Windows((8, 8), 4)), want.reshape(2, 3, 64, 8))


def big(*size: int) -> Tensor:
    return torch.zeros(size)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: attention(big(1, 2, 3), big(1, 2, 3, 4), big(1, 2, 3, 4)), r"q of shape \(1, 2, 3\)"),
        (lambda: attention(big(1, 2, 3, 4), big(1, 2, 3, 5), big(1, 2, 3, 4)), r"k of shape \(1, 2, 3, 5\)"),
        (lambda: attention(big(1, 3, 3, 4), big(1, 2, 3, 4), big(1, 2, 3, 4)), "a divisor of 3"),
        (lambda: attention(big(1, 2, 3, 4), big(1, 2, 3, 4), big(1, 2, 5, 4)), r"v of shape \(1, 2, 5, 4\)"),
        (lambda: attention(big(1, 2, 3, 4), big(1, 2, 3, 4), big(1, 2, 3, 4).half()), "v is torch.float16"),
        (lambda: attention(*[torch.zeros(1, 1, 2, 2, dtype=torch.int64)] * 3), "floating point"),
        (lambda: attention(*[big(1, 1, 35, 2)] * 3, Neighborhood((6, 6), 3)), "36 positions, there are 35"),
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, bias=big(1, 1, 4, 5)), r"bias of shape \(1, 1, 4, 5\)"),
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, bias=big(4, 4)), r"bias of shape \(4, 4\)"),
        (lambda: RelativeBias(big(2, 48), (4, 4)), r"table of shape \(2, 48\) must be \(heads, 49\)"),
        (
            lambda: attention(
                *[big(1, 1, 16, 2)] * 3, Windows((4, 4), 4), bias=RelativeBias(big(1, 9), (2, 2))
            ),
            r"at least \(4, 4\)",
        ),
        (
            lambda: attention(*[big(1, 1, 16, 2)] * 3, Windows((4, 4), 4), bias=RelativeBias(big(1, 31), 16)),
            "2 axes",
        ),
        (lambda: attention(*[big(1, 3, 4, 2)] * 3, bias=RelativeBias(big(2, 7), 4)), "1 or 3 rows"),
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, sink=big(1, 1, 3)), r"sink of shape \(1, 1, 3\)"),
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, gate=big(2)), r"gate of shape \(1, 2, 1\)"),
        (
            lambda: attention(*[big(3, 1, 5, 2)] * 3, KeyPadding(torch.ones(2, 5).bool())),
            "tells apart 2 batch entries",
        ),
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, "causal"), "must be a Pattern, got str"),  # type: ignore[arg-type]
        (lambda: attention(*[big(1, 1, 4, 2)] * 3, backend="cuda"), "backend='cuda'"),
        (
            lambda: attention(*[big(1, 1, 4, 2)] * 3, backend="triton"),
            "cannot run attention: (the tensors are on cpu|the package)",
        ),
        (lambda: attention(*[big(1, 1, 4, 2).double()] * 3, backend="triton"), "cannot run attention: "),
        (
            lambda: attention(*[big(1, 1, 4, 0)] * 3),
            r"q of shape \(1, 1, 4, 0\) must have a dim of at least 1",
        ),
        (
            lambda: attention(*[big(1, 1, 4, 2).to(torch.float8_e5m2)] * 3),
            "must be floating point, got torch.float8",
        ),
        (lambda: merge([], []), "at least one"),
        (lambda: merge([big(1, 1, 4, 2)], [big(1, 1, 5)]), "must be"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
