"""What the tests of the kernel layer share: a catalogue of patterns, errors measured against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels.patterns import (
    BlockLists,
    Blocks,
    Causal,
    FromStart,
    Full,
    Global,
    Halo,
    KeyPadding,
    Neighborhood,
    Packed,
    Pattern,
    PerHead,
    PooledCausal,
    Regions,
    Segments,
    Streaming,
    Strided,
    Tokens,
    Window,
    Windows,
    stripes,
)

Case = tuple[Pattern, int, int]


def static_cases() -> list[Case]:
    """Patterns that are values, with lengths that leave ragged tiles."""
    return [
        (Full(), 7, 65),
        (Causal(), 63, 63),
        (Causal(offset=-5), 65, 7),
        (Causal(offset=9), 1, 10),
        (Window(3, 2), 130, 130),
        (Window(40, 0, offset=20), 50, 70),
        (Streaming(4, 9), 130, 130),
        (Streaming(40, 9), 130, 130),
        (Streaming(2, 9, offset=60), 20, 80),
        (Strided(5), 66, 66),
        (Window(6, 0) | Strided(7) & Causal(), 49, 49),
        (Global(3) | Window(2, 2), 100, 100),
        (Segments((3, 0, 64, 9)), 76, 76),
        (Segments((1, 4, 9), causal_scales=True), 14, 14),
        (Packed((0, 3, 9), (0, 1, 70)), 9, 70),
        (Packed((0, 3, 65)) & Causal(), 65, 65),
        (Neighborhood((9, 11), 3), 99, 99),
        (Neighborhood((14, 14), 7), 196, 196),
        (Neighborhood((12,), 3, dilation=3, stride=2), 12, 12),
        (Neighborhood((11, 9), (4, 3), dilation=(2, 3), stride=(2, 1)), 99, 99),
        (Neighborhood((4, 5, 6), 3, causal=(True, False, False)), 120, 120),
        (Windows((14, 14), 7), 196, 196),
        (Windows((14, 14), 7, shift=3), 196, 196),
        (Windows((14, 14), 7, shift=3, border="-100"), 196, 196),
        (Windows((9, 10), (4, 3)), 90, 90),
        (Windows((9, 10), (4, 3), shift=(2, 1), border="zero"), 90, 90),
        (Windows((12, 12), 3, order="grid"), 144, 144),
        (stripes((8, 9), 2, 0) | stripes((8, 9), 2, 1), 72, 72),
        (Halo((9, 9), 4, 1), 81, 81),
        (Halo((8, 8), 4, 2, border="zero"), 64, 64),
        (PerHead(Full(), Causal(), Streaming(1, 3)), 40, 50),
        (PooledCausal(4), 70, 17),
        (Global(3, offset=2) | Window(2, 2, offset=2), 60, 62),
    ]


def data_cases() -> list[Case]:
    """Patterns that hold indices, for a batch of 2 and 3 heads."""
    draw = torch.Generator().manual_seed(0)

    def index(high: int, *shape: int) -> Tensor:
        return torch.randint(-1, high, shape, generator=draw)

    def coin(*shape: int) -> Tensor:
        return torch.rand(shape, generator=draw) < 0.4

    return [
        (Blocks(coin(2, 3, 4, 4), 16), 60, 64),
        (Blocks(coin(5, 2), 16) & Causal(), 70, 30),
        (BlockLists(index(5, 2, 3, 9, 3), 8), 70, 33),
        (BlockLists(index(2, 3, 2, 2), 64) & Causal(), 90, 100),
        (Tokens(index(33, 2, 1, 40, 5)), 40, 33),
        (Tokens(index(20, 30, 4)), 30, 20),
        (KeyPadding(coin(2, 50)) & Causal(), 40, 50),
        (KeyPadding(coin(2, 30)) & Window(3, 3), 30, 30),
        (Blocks(coin(2, 3, 4, 5), 16, 4), 60, 20),
        (Regions((9, 11), (4, 3), coin(2, 1, 12, 12)), 99, 99),
        (Regions((3, 4, 5), 2, coin(2, 3, 60, 12)), 60, 60),
        (FromStart(Streaming(2, 5, offset=20), torch.tensor([0, 13])), 30, 50),
    ]


def cases() -> list[Case]:
    """The whole catalogue."""
    return static_cases() + data_cases()


def case_id(case: Case) -> str:
    """A short name for pytest."""
    return f"{case[0]!r}-{case[1]}x{case[2]}"


def distance(found: Tensor, truth: Tensor) -> float:
    """Root-mean-square error relative to a float64 truth; infinite entries must agree exactly.

    A truth below 0.1 on average counts as 0.1, and one that is zero (the gradient of a query that sees one
    key) as 1, so that the rounding of what cancels is no error.
    """
    found, truth = found.detach().double(), truth.detach().double()
    infinite = truth.isinf()
    assert torch.equal(found[infinite], truth[infinite])
    error, size = (found - truth)[~infinite], truth[~infinite]
    assert not error.isnan().any()
    if not size.numel():
        return 0.0
    typical = size.norm() / size.numel() ** 0.5
    least = 0.1 if typical > 1e-9 else 1.0
    return float(error.norm() / size.numel() ** 0.5 / typical.clamp(min=least))


def gradients(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """Outputs of a function in a precision, then the gradient of every input under fixed weights."""
    leaves = [one.detach().to(dtype).requires_grad_() for one in inputs]
    outputs = [one for one in run(*leaves) if one.requires_grad]
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(one.shape, generator=draw, dtype=torch.float64).to(one) for one in outputs]
    finite = [torch.where(one.isinf(), 0, one) for one in outputs]
    grads = torch.autograd.grad(finite, leaves, weights, allow_unused=True)
    return [
        *outputs,
        *(torch.zeros_like(one) if grad is None else grad for one, grad in zip(leaves, grads, strict=True)),
    ]


def assert_within_budget(
    run: Callable[..., Sequence[Tensor]],
    plain: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Error at most twice (gradients three times) that of plain torch in the same precision."""
    truth = gradients(plain, inputs, torch.float64)
    budget = gradients(plain, inputs, dtype)
    found = gradients(run, inputs, dtype)
    assert len(found) == len(truth)
    outputs = len(truth) - len(inputs)
    wide = dtype.itemsize >= 4  # the roundings of 16 bits are too large to be allowed more of
    few = any(
        one.numel() <= 64 or (wide and one.dim() > 2 and one.numel() <= 16 * one.shape[-1]) for one in truth
    )
    for place, (one, other, exact) in enumerate(zip(found, budget, truth, strict=True)):
        factor = 2 if place < outputs else 3
        # Plain torch may round a handful of numbers luckily; over many, luck evens out. Gradients of a few
        # queries follow from a few probabilities each, however many numbers they hold.
        floor = (8 if few else 2) * torch.finfo(dtype).eps
        if exact.numel() <= (4 if wide else 1) or (
            not exact.isinf().any() and float(exact.detach().norm()) < 1e-9
        ):
            # What cancels leaves the rounding of its terms, whose size the truth does not tell: of a single
            # key the difference of two sums of as many products as a head is wide. A number or two may be
            # what is left of any sum.
            floor = 32 * torch.finfo(dtype).eps
        error, allowed = distance(one, exact), factor * distance(other, exact) + floor
        assert error <= allowed, f"tensor {place} of {len(truth)}: error {error:.2e}, allowed {allowed:.2e}"


def assert_transforms(layer: torch.nn.Module, leaves: Sequence[Tensor], **tolerance: float) -> None:
    """A layer gives the same compiled, checkpointed and exported, and the same gradients but exported.

    Args:
        layer: Takes the leaves; one that it does not use has no gradient.
        leaves: Its arguments.
        tolerance: Of the gradients, as of ``torch.testing.assert_close``.
    """
    want = layer(*leaves)
    wanted = torch.autograd.grad(want.sum(), leaves, allow_unused=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for run in (compiled, lambda *given: checkpoint(layer, *given, use_reentrant=False)):
        found = run(*leaves)
        torch.testing.assert_close(found, want)
        got = torch.autograd.grad(found.sum(), leaves, allow_unused=True)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, **tolerance)
    given = tuple(one.detach() for one in leaves)
    torch.testing.assert_close(torch.export.export(layer, given).module()(*given), want)
