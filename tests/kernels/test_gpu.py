"""Every operator and pattern on a CUDA device in float32, float16 and bfloat16, against the float64 formula.

``pytest -m gpu tests/kernels``. It shows what the interpreter cannot: the arithmetic of tensor cores, races
between warps, and that compiled code calls the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from kernel_tools import Case, assert_within_budget, case_id, cases, distance
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from graphrec.kernels import RelativeBias, attention, explain, scan, spmm
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.catalogue import CALLS, Call
from graphrec.kernels.graph import CSR
from graphrec.kernels.patterns import Causal, Neighborhood, Pattern, Window, Windows, decode, encode

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TRAINED = [call for call in CALLS.values() if call.gradients]


Run = Callable[..., list[Tensor]]


def bound(call: Call) -> tuple[Callable[[str | None], Run], list[Tensor]]:
    """A maker of functions of an operator's floating-point tensors alone, and those tensors in float64."""
    flat, shape = tree_flatten(call.make("cuda", torch.float64))
    places = [i for i, one in enumerate(flat) if isinstance(one, Tensor) and one.is_floating_point()]

    def make(backend: str | None) -> Run:
        def run(*given: Tensor) -> list[Tensor]:
            filled = list(flat)
            for place, one in zip(places, given, strict=True):
                filled[place] = one
            args, kwargs = tree_unflatten(filled, shape)
            options = {"backend": backend} if call.backends else {}
            return list(tree_leaves(call.operator(*args, **kwargs, **options)))

        return run

    return make, [flat[place] for place in places]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", TRAINED, ids=lambda call: call.name)
def test_operators(call: Call, dtype: torch.dtype) -> None:
    make, given = bound(call)
    assert_within_budget(make(None), make("reference"), given, dtype)


@pytest.mark.parametrize("call", [one for one in CALLS.values() if one.backends], ids=lambda call: call.name)
def test_triton_runs_unless_it_says_why_not(call: Call) -> None:
    args, kwargs = call.make("cuda")
    told = explain(call.operator, *args, **kwargs)
    assert told.backend == "triton" or told.refused["triton"]


def drawn(q_len: int, k_len: int, dims: tuple[int, int]) -> list[Tensor]:
    """q, k and v of two entries and three heads, in float64."""
    torch.manual_seed(0)
    sizes = (q_len, dims[0]), (k_len, dims[0]), (k_len, dims[1])
    return [torch.randn(2, 3, *size, device="cuda", dtype=torch.float64) for size in sizes]


def on_device(pattern: Pattern) -> Pattern:
    """The pattern with its indices on the GPU."""
    text, tensors = encode(pattern)
    return decode(text, [one.cuda() for one in tensors])


@pytest.mark.parametrize(
    ("dtype", "dims"),
    [
        (torch.float32, (10, 7)),
        (torch.float32, (64, 64)),
        (torch.float16, (53, 20)),
        (torch.bfloat16, (32, 32)),
        (torch.bfloat16, (128, 96)),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_patterns(case: Case, dtype: torch.dtype, dims: tuple[int, int]) -> None:
    pattern, q_len, k_len = on_device(case[0]), *case[1:]

    def run(backend: str) -> Callable[..., Sequence[Tensor]]:
        def call(q: Tensor, k: Tensor, v: Tensor) -> Sequence[Tensor]:
            return attention(q, k, v, pattern, return_lse=True, backend=backend)

        return call

    assert_within_budget(run("triton"), run("reference"), drawn(q_len, k_len, dims), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("pattern", "window"),
    [
        (Windows((56, 56), 7), (7, 7)),
        (Windows((28, 28), 7, shift=3, border="-100"), (7, 7)),
        (Neighborhood((28, 28), 7), (7, 7)),
        (Neighborhood((20, 21), 13), (13, 13)),
    ],
    ids=repr,
)
def test_grids_with_a_table(pattern: Any, window: tuple[int, int], dtype: torch.dtype) -> None:
    """Grids of published size, where many tiles add to one entry of the table."""
    length = math.prod(pattern.shape)
    columns = math.prod(2 * side - 1 for side in window)
    table = torch.randn(3, columns, device="cuda", dtype=torch.float64)
    given = [*drawn(length, length, (32, 32)), table]

    def run(backend: str) -> Callable[..., Sequence[Tensor]]:
        def call(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Sequence[Tensor]:
            return (attention(q, k, v, pattern, bias=RelativeBias(table, window), backend=backend),)

        return call

    assert_within_budget(run("triton"), run("reference"), given, dtype)


@pytest.mark.parametrize("length", [1, 2, 197, 4097])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_causal_window(length: int, dtype: torch.dtype) -> None:
    pattern = Window(700, 0) & Causal()

    def run(backend: str) -> Callable[..., Sequence[Tensor]]:
        return lambda q, k, v: (attention(q, k, v, pattern, backend=backend),)

    assert_within_budget(run("triton"), run("reference"), drawn(length, length, (64, 64)), dtype)


def test_same_numbers_each_time() -> None:
    """No atomic additions: gradients of two runs are equal bit by bit."""
    pattern = Neighborhood((28, 28), 7)
    leaves = [one.bfloat16().requires_grad_() for one in drawn(784, 784, (32, 32))]
    first, second = (
        torch.autograd.grad(attention(*leaves, pattern, backend="triton").float().square().sum(), leaves)
        for _ in range(2)
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("call", TRAINED, ids=lambda call: call.name)
def test_compiled_by_inductor(call: Call) -> None:
    torch._dynamo.reset()
    make, given = bound(call)
    leaves = [one.float().requires_grad_() for one in given]
    run = make(None)
    compiled = torch.compile(run, fullgraph=True)
    for one, other in zip(gradients(compiled, leaves), gradients(run, leaves), strict=True):
        assert distance(one, other) < 1e-4


def gradients(run: Callable[..., Sequence[Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    """Outputs, then gradients under weights that differ from place to place."""
    outputs = [one for one in run(*leaves) if one.requires_grad]
    weights = [
        torch.linspace(-1, 1, one.numel(), device="cuda").view(one.shape).to(one.dtype) for one in outputs
    ]
    grads = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
    return [*outputs, *(torch.zeros(()) if one is None else one for one in grads)]


@pytest.mark.parametrize("call", TRAINED, ids=lambda call: call.name)
def test_replayed_in_a_cuda_graph(call: Call) -> None:
    """Nothing waits for the device once plans are made: a forward can be captured and replayed."""
    make, given = bound(call)
    run, leaves = make(None), [one.float() for one in given]
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            want = [one.clone() for one in run(*leaves)]
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run(*leaves)
        graph.replay()
        torch.cuda.synchronize()
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other)


def test_large_graph_and_scan() -> None:
    """More programs than one row of a launch grid may hold in its second dimension."""
    nodes, edges = 200_000, 1_000_000
    target = torch.randint(nodes, (edges,), device="cuda").sort().values
    ptr = torch.searchsorted(target, torch.arange(nodes + 1, device="cuda"))
    graph = CSR(ptr, torch.randint(nodes, (edges,), device="cuda"), nodes)
    x = torch.randn(nodes, 40, device="cuda", requires_grad=True)
    pair = [spmm(graph, x, backend=backend) for backend in ("triton", "torch")]
    assert distance(pair[0], pair[1]) < 1e-5
    grads = [torch.autograd.grad(one.square().sum(), x)[0] for one in pair]
    assert distance(grads[0], grads[1]) < 1e-5
    a, b = torch.rand(3, 70_000, 8, device="cuda"), torch.randn(3, 70_000, 8, device="cuda")
    assert distance(scan(a, b, backend="triton"), scan(a, b, backend="torch")) < 1e-4
