"""Linear attention, with decays and with the delta rule: chunks against the float64 formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_tools import assert_within_budget, distance, gradients
from torch import Tensor
from torch.nn import functional as F

from graphrec.kernels import delta_rule, gated_linear_attention, linear_attention

LENGTHS = st.sampled_from([1, 2, 7, 49, 63, 65, 130])
CHUNKS = st.sampled_from([1, 16, 64])
Run = Callable[..., Any]


def cut(x: Tensor, part: slice) -> Tensor:
    return x[:, :, part]


@settings(max_examples=25)
@given(LENGTHS, st.booleans(), st.booleans(), st.booleans(), CHUNKS, st.integers(0, 99))
def test_linear_attention(
    length: int, causal: bool, normalize: bool, stateful: bool, chunk: int, seed: int
) -> None:
    assume(
        length > 1 or stateful or not normalize
    )  # one key: the gradient of q is zero, rounding is all there is
    torch.manual_seed(seed)
    inputs = [torch.randn(2, 3, length, width).exp() for width in (5, 5)] + [torch.randn(2, 3, length, 4)]
    if stateful:
        inputs.append(torch.randn(2, 3, 5, 4 + normalize).exp())

    def run(backend: str) -> Run:
        def call(q: Tensor, k: Tensor, v: Tensor, *state: Tensor) -> Any:
            options = {"causal": causal, "normalize": normalize, "chunk": chunk, "backend": backend}
            return linear_attention(q, k, v, state=state[0] if state else None, return_state=True, **options)  # type: ignore[call-overload]

        return call

    assert_within_budget(run("torch"), run("reference"), inputs)


def test_linear_attention_by_hand() -> None:
    q, k, v = (torch.rand(1, 1, 6, 3, dtype=torch.float64) for _ in range(3))
    weights = (q @ k.mT).tril()
    want = weights / weights.sum(-1, keepdim=True) @ v
    torch.testing.assert_close(linear_attention(q, k, v, normalize=True, chunk=4), want)


def test_linear_attention_to_one_key_is_its_value() -> None:
    q, k, v = (torch.rand(1, 1, 1, 3) for _ in range(3))
    torch.testing.assert_close(linear_attention(q, k, v, normalize=True), v)


@settings(max_examples=40)
@given(
    LENGTHS,
    st.booleans(),
    st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.booleans(),
    CHUNKS,
    st.sampled_from([(1, 1), (5, 4), (6, 16), (20, 30)]),
    st.integers(0, 99),
)
def test_gated_linear_attention(
    length: int,
    vector: bool,
    heads: tuple[int, int],
    strength: float,
    stateful: bool,
    chunk: int,
    dims: tuple[int, int],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    inputs = [torch.randn(2, heads[0], length, dims[0]) for _ in range(2)]
    inputs.append(torch.randn(2, heads[1], length, dims[1]))
    inputs.append(-torch.rand(2, heads[1], length, *dims[:1] * vector) * strength)
    if stateful:
        inputs.append(torch.randn(2, heads[1], *dims))

    def run(backend: str) -> Run:
        def call(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *state: Tensor) -> Any:
            options = {"return_state": True, "chunk": chunk, "backend": backend}
            return gated_linear_attention(q, k, v, decay, state=state[0] if state else None, **options)  # type: ignore[call-overload]

        return call

    assert_within_budget(run("torch"), run("reference"), inputs)


@settings(max_examples=40)
@given(
    LENGTHS,
    st.sampled_from([None, 0.01, 1.0, 30.0]),
    st.booleans(),
    CHUNKS,
    st.sampled_from([(3, 1), (5, 4), (6, 16), (20, 30)]),
    st.integers(0, 99),
)
def test_delta_rule(
    length: int, strength: float | None, stateful: bool, chunk: int, dims: tuple[int, int], seed: int
) -> None:
    """A chunk's triangular system rounds more than single steps do, by its length, hence the wider floor."""
    torch.manual_seed(seed)
    q, k = (F.normalize(torch.randn(2, 3, length, dims[0]), dim=-1) for _ in range(2))
    inputs = [q, k, torch.randn(2, 3, length, dims[1]), torch.rand(2, 3, length)]
    if strength is not None:
        inputs.append(-torch.rand(2, 3, length) * strength)
    if stateful:
        inputs.append(torch.randn(2, 3, *dims))

    def run(backend: str) -> Run:
        def call(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *rest: Tensor) -> Any:
            decay = None if strength is None else rest[0]
            options = {"return_state": True, "chunk": chunk, "backend": backend}
            return delta_rule(q, k, v, beta, decay, state=rest[-1] if stateful else None, **options)  # type: ignore[call-overload]

        return call

    truth, budget = (gradients(run("reference"), inputs, dtype) for dtype in (torch.float64, torch.float32))
    found = gradients(run("torch"), inputs, torch.float32)
    floor = 8 * max(1, min(chunk, length) / 16) * torch.finfo(torch.float32).eps
    for place, (one, other, exact) in enumerate(zip(found, budget, truth, strict=True)):
        error, allowed = distance(one, exact), 3 * distance(other, exact) + floor
        assert error <= allowed, (place, error, allowed)


@pytest.mark.parametrize("chunk", [1, 16, 64])
def test_parallel_keys_overwrite_each_other(chunk: int) -> None:
    """The worst case of the triangular system: every key is the same, so all writes meet in one place."""
    torch.manual_seed(0)
    one = torch.ones(1, 1, 130, 1)
    v, beta = torch.randn(1, 1, 130, 1), torch.rand(1, 1, 130)
    want = delta_rule(*(x.double() for x in (one, one, v, beta)), backend="reference")
    assert (delta_rule(one, one, v, beta, chunk=chunk) - want).abs().max() < 16 * torch.finfo(v.dtype).eps


def drawn(length: int = 20, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Inputs of all three operators."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, length, 4, dtype=dtype) for _ in range(3))
    decay = -torch.rand(1, 2, length, dtype=dtype)
    return {
        "q": q,
        "k": F.normalize(k, dim=-1),
        "v": v,
        "beta": torch.rand(1, 2, length, dtype=dtype),
        "decay": decay,
        "wide": -torch.rand(1, 2, length, 4, dtype=dtype),
    }


FORMS: dict[str, Run] = {
    "linear": lambda x, **options: linear_attention(x["q"], x["k"], x["v"], **options),
    "per head": lambda x, **options: gated_linear_attention(x["q"], x["k"], x["v"], x["decay"], **options),
    "per dimension": lambda x, **options: gated_linear_attention(
        x["q"], x["k"], x["v"], x["wide"], **options
    ),
    "delta": lambda x, **options: delta_rule(x["q"], x["k"], x["v"], x["beta"], **options),
    "gated delta": lambda x, **options: delta_rule(x["q"], x["k"], x["v"], x["beta"], x["decay"], **options),
}


@pytest.mark.parametrize("form", FORMS)
def test_in_two_parts(form: str) -> None:
    x, run = drawn(21), FORMS[form]
    whole, end = run(x, return_state=True, chunk=8)
    first, state = run({name: cut(one, slice(10)) for name, one in x.items()}, return_state=True, chunk=8)
    rest = {name: cut(one, slice(10, None)) for name, one in x.items()}
    last, final = run(rest, state=state, return_state=True, chunk=8)
    torch.testing.assert_close(torch.cat([first, last], 2), whole)
    torch.testing.assert_close(final, end)
    one = {name: cut(y, slice(10, 11)) for name, y in x.items()}
    torch.testing.assert_close(run(one, state=state), whole[:, :, 10:11])


@pytest.mark.parametrize("form", FORMS)
def test_the_chunk_changes_nothing(form: str) -> None:
    x, run = drawn(70), FORMS[form]
    want = run(x, chunk=128)
    for chunk in (1, 3, 16, 64):
        torch.testing.assert_close(run(x, chunk=chunk), want)


@pytest.mark.parametrize("form", FORMS)
def test_the_past_does_not_see_the_future(form: str) -> None:
    x, run = drawn(20, torch.float32), FORMS[form]
    before = run(x, chunk=8)[:, :, :12]
    for one in x.values():
        one[:, :, 12:] = -3.0
    assert torch.equal(run(x, chunk=8)[:, :, :12], before)


@pytest.mark.parametrize("form", FORMS)
def test_no_positions(form: str) -> None:
    x = {name: cut(one, slice(0)) for name, one in drawn().items()}
    state = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    for backend in ("torch", "reference"):
        out, final = FORMS[form](x, state=state, return_state=True, backend=backend)
        assert out.shape == (1, 2, 0, 4)
        assert torch.equal(final, state)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_by_differences(form: str) -> None:
    x = {name: one.requires_grad_() for name, one in drawn(5).items()}
    state = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def run(state: Tensor, *given: Tensor) -> Any:
        return FORMS[form](
            dict(zip(x, given, strict=True)), state=state, return_state=True, chunk=2, backend="torch"
        )

    assert torch.autograd.gradcheck(run, (state, *x.values()))
    assert torch.autograd.gradgradcheck(lambda *given: run(*given)[0], (state, *x.values()))


def test_decays_of_one_are_none() -> None:
    x = drawn()
    want = linear_attention(x["q"], x["k"], x["v"])
    for decay in (torch.zeros(1, 2, 20), torch.zeros(1, 2, 20, 4)):
        torch.testing.assert_close(gated_linear_attention(x["q"], x["k"], x["v"], decay.double()), want)


def test_equal_decays_of_all_dimensions_are_one_decay() -> None:
    x = drawn()
    wide = x["decay"].unsqueeze(-1).expand(-1, -1, -1, 4)
    torch.testing.assert_close(
        gated_linear_attention(x["q"], x["k"], x["v"], wide),
        gated_linear_attention(x["q"], x["k"], x["v"], x["decay"]),
    )


@pytest.mark.parametrize("vector", [False, True])
def test_forgetting_starts_afresh(vector: bool) -> None:
    """A log decay of -inf hides what came before and costs neither precision nor a gradient."""
    x = drawn(50, torch.float32)
    decay = x["wide" if vector else "decay"].clone()
    for start in (10, 40):
        decay[:, :, start] = -torch.inf
    leaves = [one.clone().requires_grad_() for one in (x["q"], x["k"], x["v"], decay)]
    out = gated_linear_attention(*leaves)
    parts = [
        gated_linear_attention(*(cut(one, slice(*part)) for one in leaves))
        for part in ((0, 10), (10, 40), (40, 50))
    ]
    torch.testing.assert_close(out, torch.cat(parts, 2))
    grads = torch.autograd.grad(out.square().sum(), leaves)
    assert all(one.isfinite().all() for one in grads)
    assert not grads[3][:, :, [10, 40]].any()


@pytest.mark.parametrize("vector", [False, True])
def test_strong_decays_stay_finite_and_precise(vector: bool) -> None:
    """A small decay right after a huge one keeps its own precision."""
    x = drawn(64, torch.float32)
    decay = x["wide" if vector else "decay"] * 1e-3
    decay[:, :, ::16] = -1e4
    found = gated_linear_attention(x["q"], x["k"], x["v"], decay)
    want = gated_linear_attention(
        *(one.double() for one in (x["q"], x["k"], x["v"], decay)), backend="reference"
    )
    assert float((found - want).norm() / want.norm()) < 1e-6


def test_seeing_both_ways() -> None:
    """Without ``causal`` a pair has the decays between its positions, whichever comes first."""
    x = drawn()
    sums = x["decay"].cumsum(-1)
    between = -(sums.unsqueeze(-1) - sums.unsqueeze(-2)).abs()
    want = (x["q"] @ x["k"].mT * between.exp()) @ x["v"]
    given_ = (x["q"], x["k"], x["v"], x["decay"])
    torch.testing.assert_close(gated_linear_attention(*given_, causal=False, chunk=8), want)
    torch.testing.assert_close(gated_linear_attention(*given_, causal=False, backend="reference"), want)


def test_a_full_step_stores_a_value_under_its_key() -> None:
    """With beta 1 and a key of length 1, reading the key gives back the value, whatever was there."""
    x = drawn()
    out = delta_rule(x["k"], x["k"], x["v"], torch.ones_like(x["beta"]))
    torch.testing.assert_close(out, x["v"])


@pytest.mark.parametrize("form", FORMS)
def test_low_precision(form: str) -> None:
    """bfloat16 products with float32 states and decays, to some of bfloat16's own steps."""
    x = drawn(150, torch.float32)
    x["q"] = F.normalize(x["q"], dim=-1)
    low = {name: one.bfloat16() for name, one in x.items()}
    out, state = FORMS[form](low, return_state=True, backend="torch")
    want = FORMS[form]({name: one.double() for name, one in low.items()}, backend="reference")
    assert (out.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert float((out - want).norm() / want.norm()) < 4 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("form", FORMS)
def test_strides_do_not_matter(form: str) -> None:
    x = drawn(33)
    odd = {name: one.transpose(1, 2).contiguous().transpose(1, 2) for name, one in x.items()}
    torch.testing.assert_close(FORMS[form](odd, chunk=8), FORMS[form](x, chunk=8))


BIG = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: linear_attention(BIG, BIG, BIG[:, :1]), r"\(1, 1, 3, 4\)"),
        (lambda: linear_attention(BIG, BIG.half(), BIG), "one dtype"),
        (lambda: linear_attention(BIG.int(), BIG.int(), BIG.int()), "floating point"),
        (lambda: linear_attention(BIG, BIG, BIG.to("meta")), "one device"),
        (lambda: linear_attention(BIG, BIG, BIG, chunk=0), "chunk=0"),
        (
            lambda: linear_attention(BIG, BIG, BIG, normalize=True, state=torch.zeros(1, 2, 4, 4)),
            r"must be \(1, 2, 4, 5\)",
        ),
        (lambda: linear_attention(BIG, BIG, BIG, backend="fast"), "backend='fast' of linear_attention"),
        (
            lambda: linear_attention(BIG, BIG, BIG, causal=False, backend="triton"),
            "cannot run linear_attention: without causal",
        ),
        (
            lambda: linear_attention(BIG.double(), BIG.double(), BIG.double(), backend="triton"),
            "cannot run linear_attention",
        ),
        (lambda: gated_linear_attention(BIG, BIG, BIG, BIG[..., :3]), r"\(1, 2, 3, 4\).*\(1, 2, 3, 3\)"),
        (lambda: gated_linear_attention(BIG, BIG, BIG, BIG[:, :, 0]), "log_decay must be"),
        (lambda: gated_linear_attention(BIG, BIG, BIG[:, :1], BIG[:, :1]), "multiple"),
        (
            lambda: gated_linear_attention(BIG, BIG, BIG, BIG, causal=False, return_state=True),
            "causal=False has no state",
        ),
        (lambda: delta_rule(BIG, BIG, BIG, BIG), "beta must be"),
        (lambda: delta_rule(BIG, BIG, BIG, BIG[..., 0], BIG), "log_decay must be"),
        (lambda: delta_rule(BIG, BIG, BIG, BIG[..., 0], state=BIG), r"state of shape \(1, 2, 3, 4\)"),
        (lambda: delta_rule(BIG, BIG, BIG, BIG[..., 0], backend="triton"), "delta_rule"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
