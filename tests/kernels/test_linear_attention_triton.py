"""The Triton kernels of linear attention, on a GPU or interpreted, against the float64 formulas.

Fresh memory is NaN. The interpreter takes some 10 ms per tile and kernel, so cases are few tiles each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import gated_linear_attention, linear_attention
from graphrec.kernels.backends import triton_missing

ON_GPU = torch.cuda.is_available()
pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
    pytest.mark.skipif(not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="run with -m triton"),
]
DEVICE = "cuda" if ON_GPU else "cpu"
DECAYS = ["none", "per head", "per dimension"]


def runner(decay: str, backend: str, **options: Any) -> Callable[..., Any]:
    """An operator on q, k, v, a state and, unless ``decay`` is none, log decays."""

    def run(q: Tensor, k: Tensor, v: Tensor, state: Tensor, *rest: Tensor) -> Any:
        name = "reference" if q.dtype == torch.float64 else backend
        given = {"state": state, "return_state": True, "backend": name, **options}
        if decay == "none":
            return linear_attention(q, k, v, **given)
        return gated_linear_attention(q, k, v, *rest, **given)

    return run


def draw(
    decay: str,
    length: int,
    dims: tuple[int, int] = (10, 7),
    heads: tuple[int, int] = (1, 2),
    strength: float = 1.0,
    batch: int = 1,
) -> list[Tensor]:
    torch.manual_seed(0)
    shared = heads[1] if decay == "none" else heads[0]
    sizes = [(shared, length, dims[0])] * 2 + [(heads[1], length, dims[1]), (heads[1], *dims)]
    made = [torch.randn(batch, *size, dtype=torch.float64) for size in sizes]
    if decay != "none":
        size = (heads[1], length, *dims[:1] * (decay == "per dimension"))
        made.append(-torch.rand(batch, *size, dtype=torch.float64) * strength)
    return [one.to(DEVICE) for one in made]


def compare(decay: str, length: int, **options: Any) -> None:
    run, plain = (runner(decay, backend) for backend in ("triton", "reference"))
    assert_within_budget(run, plain, draw(decay, length, **options))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("length", [1, 2, 7, 63, 65, 130])
def test_lengths(decay: str, length: int) -> None:
    compare(decay, length)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dims", [(1, 1), (6, 16), (20, 30), (32, 53), (77, 64), (96, 128)])
def test_dimensions(decay: str, dims: tuple[int, int]) -> None:
    compare(decay, 20, dims=dims, heads=(1, 1))


@pytest.mark.parametrize("decay", DECAYS[1:])
@pytest.mark.parametrize("strength", [0.01, 30.0])
def test_weak_and_strong_decays(decay: str, strength: float) -> None:
    compare(decay, 70, strength=strength, heads=(1, 1))


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_batches_and_shared_heads(decay: str) -> None:
    compare(decay, 9, heads=(2, 6), batch=2)


def test_normaliser() -> None:
    q, k, v, _ = draw("none", 70, heads=(1, 1))

    def run(backend: str) -> Callable[..., Any]:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Any:
            name = "reference" if q.dtype == torch.float64 else backend
            return (linear_attention(q, k, v, normalize=True, backend=name),)

        return call

    assert_within_budget(run("triton"), run("reference"), [q.exp(), k.exp(), v])


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_seeing_both_ways(decay: str) -> None:
    q, k, v, _, log_decay = (one.float() for one in draw(decay, 70, heads=(1, 1)))
    found, want = (
        gated_linear_attention(q, k, v, log_decay, causal=False, backend=backend)
        for backend in ("triton", "torch")
    )
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", DECAYS[1:])
def test_forgetting_starts_afresh(decay: str) -> None:
    q, k, v, state, log_decay = (one.float() for one in draw(decay, 70, heads=(1, 1)))
    log_decay[:, :, [0, 30]] = -torch.inf
    leaves = [one.requires_grad_() for one in (q, k, v, log_decay)]
    out = gated_linear_attention(*leaves, state=state, backend="triton")
    parts = [
        gated_linear_attention(*(one[:, :, part] for one in leaves)) for part in (slice(30), slice(30, 70))
    ]
    torch.testing.assert_close(out, torch.cat(parts, 2), rtol=1e-4, atol=1e-4)
    assert all(one.isfinite().all() for one in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(decay: str, dtype: torch.dtype) -> None:
    """Decays and states stay float32; the interpreter cuts bfloat16 off where a GPU rounds."""
    inputs = draw(decay, 70, dims=(16, 16), heads=(1, 1))
    low = [one.to(dtype if place < 3 else torch.float32) for place, one in enumerate(inputs)]
    low[0] = low[0] * 0.25
    leaves = [one.requires_grad_() for one in low]
    exact = [one.detach().double().requires_grad_() for one in low]
    found, truth = runner(decay, "triton")(*leaves), runner(decay, "reference")(*exact)
    weights = [torch.randn(one.shape, dtype=torch.float64, device=DEVICE) for one in truth]
    grads = torch.autograd.grad(
        found, leaves, [w.to(one.dtype) for w, one in zip(weights, found, strict=True)]
    )
    exact_grads = torch.autograd.grad(truth, exact, weights)
    for one, other in zip([*found, *grads], [*truth, *exact_grads], strict=True):
        assert distance(one, other) < 6 * torch.finfo(dtype).eps


@pytest.mark.parametrize("decay", DECAYS)
def test_strides_need_no_copy(decay: str) -> None:
    inputs = [one.float() for one in draw(decay, 20, heads=(2, 2))]
    odd = [one.transpose(1, 2).contiguous().transpose(1, 2) for one in inputs]
    odd[2] = torch.stack([odd[2], odd[2]], -1)[..., 0]
    for one, other in zip(runner(decay, "triton")(*odd), runner(decay, "triton")(*inputs), strict=True):
        assert torch.equal(one, other)


def test_a_repeated_decay_needs_no_copy() -> None:
    q, k, v, *_ = (one.float() for one in draw("none", 20))
    rate = torch.tensor([-0.1, -0.5], device=DEVICE).view(1, 2, 1)
    expanded = gated_linear_attention(q, k, v, rate.expand(1, 2, 20), backend="triton")
    want = gated_linear_attention(q, k, v, rate.repeat(1, 1, 20), backend="torch")
    torch.testing.assert_close(expanded, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decay", DECAYS)
def test_operator_is_registered(decay: str) -> None:
    """opcheck: schema, fake tensors, autograd and tracing of the operator itself."""
    from graphrec.kernels.linear.triton import chunk_linear

    q, k, v, state, *rest = (one.float().requires_grad_() for one in draw(decay, 9))
    gate = None if decay == "none" else rest[0].detach().requires_grad_()
    if decay == "per head":
        gate = rest[0].detach().unsqueeze(-1).requires_grad_()
    torch.library.opcheck(chunk_linear.registered, (q, k, v, gate, state))


@pytest.mark.parametrize("decay", DECAYS)
def test_compiles_and_checkpoints(decay: str) -> None:
    torch._dynamo.reset()
    inputs = [one.float().requires_grad_() for one in draw(decay, 20)]

    def run(*given: Tensor) -> Tensor:
        out, final = runner(decay, "triton")(*given)
        return out.sin().sum() + final.cos().sum()  # type: ignore[no-any-return]

    want = torch.autograd.grad(run(*inputs), inputs)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for other in (compiled(*inputs), checkpoint(run, *inputs, use_reentrant=False)):
        for one, exact in zip(torch.autograd.grad(other, inputs), want, strict=True):
            torch.testing.assert_close(one, exact)


@pytest.mark.parametrize("decay", DECAYS)
def test_no_positions(decay: str) -> None:
    inputs = [one.float().requires_grad_() for one in draw(decay, 0)]
    out, final = runner(decay, "triton")(*inputs)
    assert out.shape == (1, 2, 0, 7)
    assert torch.equal(final, inputs[3])
    assert torch.autograd.grad(final.sum(), inputs[3])[0].eq(1).all()
