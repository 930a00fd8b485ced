"""Recurrences and the selective scan against plain float64 forms."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import assert_transforms, assert_within_budget, distance, gradients
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import scan, selective_scan
from graphrec.kernels.scan import torch as plain
from graphrec.kernels.scan.selective_torch import cut

LENGTHS = st.sampled_from([1, 2, 7, 49, 63, 65, 197])


@settings(max_examples=20)
@given(LENGTHS, st.booleans(), st.booleans(), st.integers(0, 99))
def test_scan(length: int, reverse: bool, initial: bool, seed: int) -> None:
    torch.manual_seed(seed)
    inputs = [torch.rand(2, length, 3, 2) * 1.2 - 0.1, torch.randn(2, length, 3, 2)]
    if initial:
        inputs.append(torch.randn(2, 3, 2))

    def run(backend: str) -> Callable[..., tuple[Tensor]]:
        return lambda a, b, *first: (
            scan(a, b, initial=first[0] if first else None, reverse=reverse, backend=backend),
        )

    assert_within_budget(run("torch"), run("reference"), inputs)


@pytest.mark.parametrize("length", [5, 50])
def test_steps_and_chunks_agree(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.rand(2, length, 3), torch.randn(2, length, 3)
    chosen = scan(a, b)
    for short, wide in ((0, 1 << 30), (length, 1 << 30), (0, 1)):
        monkeypatch.setattr(plain, "_SHORT", short)
        monkeypatch.setattr(plain, "_WIDE", wide)
        torch.testing.assert_close(scan(a, b), chosen)


def test_scan_by_hand() -> None:
    assert scan(torch.full((1, 3), 2.0), torch.ones(1, 3)).tolist() == [[1, 3, 7]]
    assert scan(torch.full((1, 3), 2.0), torch.ones(1, 3), reverse=True).tolist() == [[7, 3, 1]]
    assert scan(torch.zeros(1, 0, 2), torch.zeros(1, 0, 2)).shape == (1, 0, 2)
    mixed = scan(torch.ones(1, 3).bfloat16(), torch.ones(1, 3), initial=torch.ones(1).double())
    assert (mixed.dtype, mixed.tolist()) == (torch.float32, [[2, 3, 4]])


def test_the_past_does_not_see_the_future() -> None:
    given, a, b = draw(1, 20, 3, 2), torch.rand(1, 20, 3), torch.randn(1, 20, 3)

    def outputs() -> list[Tensor]:
        return [scan(a, b)[0, :12], selective_scan(*given[:5])[0, :12]]

    before = outputs()
    for one in (a, b, given[0], given[1], *given[3:5]):
        one[:, 12:] = 9.0
    for one, other in zip(before, outputs(), strict=True):
        assert torch.equal(one, other)


def draw(batch: int, length: int, width: int, inner: int, seed: int = 0) -> list[Tensor]:
    """u, delta, decay, read_in, read_out, skip, gate, state."""
    make = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=make)

    return [
        normal(batch, length, width),
        torch.rand(batch, length, width, generator=make),
        -torch.rand(width, inner, generator=make) - 0.1,
        normal(batch, length, inner),
        normal(batch, length, inner),
        normal(width),
        normal(batch, length, width),
        normal(batch, width, inner),
    ]


def mamba_by_hand(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    read_in: Tensor,
    read_out: Tensor,
    skip: Tensor,
    gate: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """Algorithm 2 of the paper, one step at a time."""
    steps = []
    for t in range(u.shape[1]):
        state = (delta[:, t, :, None] * decay).exp() * state + delta[:, t, :, None] * read_in[:, t, None] * u[
            :, t, :, None
        ]
        steps.append((state * read_out[:, t, None]).sum(-1) + skip * u[:, t])
    return torch.stack(steps, 1) * F.silu(gate), state


def call(names: tuple[str, ...] = ("skip", "gate", "state"), **options: Any) -> Callable[..., Any]:
    """The selective scan of a flat list of tensors, with its final state."""

    def run(*given: Tensor) -> Any:
        rest = dict(zip(names, given[5:], strict=True))
        return selective_scan(*given[:5], **rest, return_state=True, **options)  # type: ignore[call-overload]

    return run


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("length", [1, 2, 33])
def test_selective_scan_is_algorithm_2(length: int, backend: str) -> None:
    assert_within_budget(call(backend=backend), mamba_by_hand, draw(2, length, 4, 3))


@settings(max_examples=20)
@given(
    LENGTHS,
    st.sampled_from([(1, 9, 2), (2, 5, 3), (1, 30, 16), (3, 7, 20)]),
    st.booleans(),
    st.sets(st.sampled_from(["skip", "gate", "state"])),
    st.integers(0, 99),
)
def test_selective_scan(
    length: int, sizes: tuple[int, int, int], reverse: bool, names: set[str], seed: int
) -> None:
    batch, width, inner = sizes
    every = draw(batch, length, width, inner, seed)
    optional = dict(zip(("skip", "gate", "state"), every[5:], strict=True))
    chosen = tuple(sorted(names))
    inputs = every[:5] + [optional[name] for name in chosen]
    run, plain = (call(chosen, reverse=reverse, backend=name) for name in ("torch", "reference"))
    assert_within_budget(run, plain, inputs)


@pytest.mark.parametrize("length", [1, 65, 1025])
def test_one_channel_with_one_state(length: int) -> None:
    """Sums over channels and states are over one number here; float64, as single roundings do not average."""
    given = [one.double() for one in draw(1, length, 1, 1)]
    found, want = call(backend="torch"), call(backend="reference")
    for one, other in zip(
        gradients(found, given, torch.float64), gradients(want, given, torch.float64), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("piece", [1, 200, 900, 4000])
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_do_not_matter(piece: int, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = draw(2, 197, 3, 4)
    monkeypatch.setattr(import_module("graphrec.kernels.scan.selective_torch"), "_PIECE", piece)
    assert_within_budget(
        call(reverse=reverse, backend="torch"), call(reverse=reverse, backend="reference"), inputs
    )


@pytest.mark.parametrize("sizes", [(1, 1025, 2, 3), (1, 512, 64, 16), (8, 65, 600, 4), (1, 7, 1, 300)])
def test_cuts_cover_the_sequence_and_keep_few_states(sizes: tuple[int, int, int, int]) -> None:
    batch, length, width, inner = sizes
    found = cut(*sizes)
    assert (found.pieces - 1) * found.length < length <= found.pieces * found.length
    kept = batch * found.pieces * width * inner
    assert kept <= batch * width * max(length, inner)


@settings(max_examples=200)
@given(st.integers(1, 4), st.integers(1, 20_000), st.integers(1, 128), st.integers(1, 16))
def test_no_piece_lies_behind_the_end(batch: int, length: int, width: int, inner: int) -> None:
    found = cut(batch, length, width, inner)
    assert (found.pieces - 1) * found.length < length <= found.pieces * found.length


def test_a_long_sequence_whose_pieces_round_up() -> None:
    inputs = draw(1, 10_000, 128, 16)  # 79 pieces of 127 positions become 76 of 133
    out, state = call(backend="torch")(*inputs)
    front, middle = call(backend="torch")(
        *(x[:, :9_990] if i in (0, 1, 3, 4, 6) else x for i, x in enumerate(inputs))
    )
    rest = [x[:, 9_990:] if i in (0, 1, 3, 4, 6) else x for i, x in enumerate(inputs)]
    back, end = call(backend="torch")(*rest[:-1], middle)
    torch.testing.assert_close(torch.cat([front, back], 1), out, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end, state, rtol=1e-4, atol=1e-4)


def test_training_keeps_no_more_than_the_inputs() -> None:
    """Bytes that autograd saves: the inputs, and states in front of pieces, never all of them."""
    inputs = [one.requires_grad_() for one in draw(2, 512, 64, 16)]
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        saved[x.data_ptr()] = x.numel()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        call(backend="torch")(*inputs)
    own = sum(one.numel() for one in inputs)
    assert sum(saved.values()) <= own + inputs[0].numel()
    assert inputs[0].numel() * 16 > 4 * own  # all states would be far more


@pytest.mark.parametrize("reverse", [False, True])
def test_selective_scan_in_parts(reverse: bool) -> None:
    u, delta, decay, read_in, read_out, skip, gate, _ = draw(1, 20, 4, 3)
    parts = (u, delta, read_in, read_out, gate)

    def run(part: slice, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, b, c, d, z = (one[:, part] for one in parts)
        return selective_scan(
            a, b, decay, c, d, skip=skip, gate=z, state=state, reverse=reverse, return_state=True
        )

    whole, end = run(slice(None))
    cuts = [slice(0, 7), slice(7, None)]
    early, late = reversed(cuts) if reverse else cuts
    first, state = run(early)
    last, final = run(late, state)
    torch.testing.assert_close(torch.cat([last, first] if reverse else [first, last], 1), whole)
    torch.testing.assert_close(final, end)


def test_two_directions_are_two_calls() -> None:
    """As Vision Mamba does it: scan, turn the sequence around, scan with other parameters, turn back, add."""
    there, back = draw(2, 33, 4, 3), draw(2, 33, 4, 3, seed=1)
    u = there[0]
    found = selective_scan(u, *there[1:5], skip=there[5]) + selective_scan(
        u, *back[1:5], skip=back[5], reverse=True
    )
    turned = [u.flip(1), back[1].flip(1), back[2], back[3].flip(1), back[4].flip(1)]
    want = selective_scan(u, *there[1:5], skip=there[5], backend="reference")
    want = want + selective_scan(*turned, skip=back[5], backend="reference").flip(1)  # type: ignore[call-overload]
    torch.testing.assert_close(found, want)


def test_strides_and_mixed_dtypes() -> None:
    given = draw(2, 30, 6, 4)
    apart = [one.mT.contiguous().mT if one.dim() > 1 else one for one in given]
    torch.testing.assert_close(call(backend="torch")(*apart), call(backend="reference")(*given))
    leaves = [one.bfloat16() if place not in (2, 5) else one for place, one in enumerate(apart)]
    leaves = [one.requires_grad_() for one in leaves]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    out, final = call(backend="torch")(*leaves)
    want = call(backend="reference")(*exact)
    assert (out.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    assert distance(out, want[0]) < 0.01
    assert distance(final, want[1]) < 1e-5
    grads = torch.autograd.grad(out.sum(), leaves)
    for one, other, leaf in zip(grads, torch.autograd.grad(want[0].sum(), exact), leaves, strict=True):
        assert one.dtype == leaf.dtype
        assert distance(one, other) < 0.01


def test_sequences_without_positions() -> None:
    given = draw(2, 0, 4, 3)
    out, final = call()(*given)
    assert out.shape == (2, 0, 4)
    assert torch.equal(final, given[7])
    assert not selective_scan(*given[:5], return_state=True)[1].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_selective_scan_is_registered(reverse: bool) -> None:
    from graphrec.kernels.scan.selective_torch import selective_scan as operator

    leaves = [one.requires_grad_() for one in draw(1, 7, 3, 2)]
    torch.library.opcheck(operator.registered, (*leaves, reverse))
    torch.library.opcheck(operator.registered, (*leaves[:5], None, None, None, reverse))
    wide = [one.double().requires_grad_() for one in draw(1, 4, 2, 2)]
    run = call(reverse=reverse, backend="torch")
    assert torch.autograd.gradcheck(run, wide)
    assert torch.autograd.gradgradcheck(run, wide, fast_mode=True)


def test_compiles_exports_and_checkpoints() -> None:
    torch._dynamo.reset()
    leaves = [one.requires_grad_() for one in draw(1, 20, 4, 3)]

    class Layer(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            out, final = call(backend="torch")(*given)
            return scan(torch.sigmoid(out), out, backend="torch").sin() + final.sum()

    assert_transforms(Layer(), leaves)


def test_autocast() -> None:
    given = draw(2, 30, 6, 4)
    project = torch.nn.Linear(6, 6)

    def run() -> Tensor:
        u = project(given[0])
        return scan(torch.sigmoid(u), selective_scan(u, *given[1:5], skip=given[5]))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run()
    assert distance(out, run()) < 0.02


WIDE = torch.zeros(1, 2, 3)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (lambda: scan(torch.zeros(1, 2), torch.zeros(1, 3)), r"\(1, 2\) and \(1, 3\)"),
        (lambda: scan(WIDE, WIDE, initial=torch.zeros(1, 2)), r"must be \(1, 3\)"),
        (lambda: scan(WIDE, WIDE, backend="fast"), "backend='fast' of scan"),
        (lambda: scan(WIDE.double(), WIDE.double(), backend="triton"), "not float64|not installed"),
        (lambda: selective_scan(WIDE, WIDE, torch.zeros(3, 4), WIDE, WIDE), r"read_in of shape \(1, 2, 3\)"),
        (lambda: selective_scan(WIDE, WIDE, WIDE, WIDE, WIDE), r"u must be \(B, T, D\)"),
        (lambda: selective_scan(WIDE, WIDE, torch.zeros(3, 0), WIDE, WIDE), r"decay \(D, N\)"),
        (
            lambda: selective_scan(*[WIDE.double()] * 2, torch.zeros(3, 3), WIDE, WIDE, backend="triton"),
            "backend='triton' cannot run selective_scan",
        ),
    ],
)
def test_mistakes_are_named(run: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run()
