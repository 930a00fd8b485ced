"""Attention among fields and the interacting layer against their formulas, output and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_tools import assert_within_budget, distance, gradients
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import attention, field_attention, interacting_layer
from graphrec.kernels.interaction import blocks, layer, operator
from graphrec.kernels.interaction import torch as plain

SIZES = [
    (1, 1, 1, 1, 1),
    (5, 2, 2, 6, 6),
    (7, 2, 39, 32, 32),
    (3, 3, 10, 16, 7),
    (2, 1, 49, 53, 64),
    (2, 1, 63, 10, 20),
    (1, 2, 65, 30, 77),
    (1, 1, 197, 96, 128),
]
"""Batch, heads, fields, and the dimensions of keys and values."""

SETTINGS = list(itertools.product([True, False], repeat=3))
"""Residual, ReLU on the projections, bias."""


def operands(size: tuple[int, ...]) -> list[Tensor]:
    """q, k and v as views of (B, F, H, D), the way a projection gives them."""
    torch.manual_seed(0)
    batch, heads, fields, dim, v_dim = size
    return [torch.randn(batch, fields, heads, one).transpose(1, 2) for one in (dim, dim, v_dim)]


def formula(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return ((q * 0.7 @ k.mT).softmax(-1) @ v,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_field_attention(size: tuple[int, ...], dtype: torch.dtype) -> None:
    for inputs in (operands(size), [one.contiguous() for one in operands(size)]):
        assert_within_budget(lambda q, k, v: (field_attention(q, k, v, scale=0.7),), formula, inputs, dtype)


@pytest.mark.parametrize("size", [(7, 2, 39, 32, 32), (2, 1, 3, 8, 5)])
def test_many_blocks_are_one_problem_each(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows (four in bfloat16) and a last one that is smaller."""
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 8 * size[1] * size[2] ** 2)
    for dtype in (torch.float32, torch.bfloat16):
        assert_within_budget(
            lambda q, k, v: (field_attention(q, k, v, scale=0.7),), formula, operands(size), dtype
        )


def test_reference_is_attention_with_rows_as_batch() -> None:
    inputs = operands((3, 2, 10, 8, 6))
    torch.testing.assert_close(
        field_attention(*inputs, backend="reference"), attention(*inputs, backend="reference")
    )


def test_large_and_small_logits_do_not_overflow() -> None:
    """Logits of a thousand either way, in the filled columns too."""
    inputs = [one * 40 for one in operands((3, 1, 5, 8, 8))]
    for sign in (1.0, -1.0):
        found = field_attention(*inputs, scale=sign)
        want = field_attention(*(one.double() for one in inputs), scale=sign, backend="reference")
        torch.testing.assert_close(found, want.float())
    q = torch.full((1, 1, 3, 4), 20.0)
    torch.testing.assert_close(field_attention(q, -q, q, scale=1.0), q)


@pytest.mark.parametrize("size", [(0, 2, 5, 4, 4), (3, 2, 0, 4, 4), (3, 0, 5, 4, 4), (3, 2, 5, 4, 0)])
def test_nothing_in_nothing_out(size: tuple[int, ...]) -> None:
    q, k, v = (one.requires_grad_() for one in operands(size))
    out = field_attention(q, k, v)
    assert out.shape == (*size[:3], size[4])
    for one in torch.autograd.grad(out.sum(), (q, k, v)):
        assert torch.equal(one, torch.zeros_like(one))


def test_gradcheck() -> None:
    given = [one.double().contiguous().requires_grad_() for one in operands((2, 2, 3, 4, 5))]
    assert torch.autograd.gradcheck(lambda *t: field_attention(*t, scale=0.5), given)


def layer_inputs(rows: int, fields: int, width: int, size: int, residual: bool, biased: bool) -> list[Tensor]:
    """x, weight and perhaps bias for heads of ``size`` together."""
    torch.manual_seed(0)
    weight = torch.randn((3 + residual) * size, width) * width**-0.5
    return [torch.randn(rows, fields, width), weight, *([torch.randn(len(weight))] if biased else [])]


def runner(backend: str, **options: Any) -> Callable[..., tuple[Tensor]]:
    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor]:
        return (interacting_layer(x, weight, bias, heads=2, scale=0.7, backend=backend, **options),)

    return run


def composed(residual: bool, rectify: bool) -> Callable[..., tuple[Tensor]]:
    """The layer of plain operations, written again."""

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor]:
        projected = x @ weight.T if bias is None else x @ weight.T + bias
        parts = (projected.relu() if rectify else projected).chunk(3 + residual, -1)
        q, k, v = (one.unflatten(-1, (2, -1)).transpose(1, 2) for one in parts[:3])
        mixed = ((q * 0.7 @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return ((mixed + parts[3] if residual else mixed).relu(),)

    return run


@pytest.mark.parametrize(("residual", "rectify", "biased"), SETTINGS)
def test_interacting_layer(residual: bool, rectify: bool, biased: bool) -> None:
    """In float64 all backends are the formula; a ReLU that rounding flips would hide in float32."""
    plain_form = composed(residual, rectify)
    for rows, fields, width, size in ((1, 4, 5, 6), (5, 39, 16, 64), (3, 7, 8, 2)):
        inputs = layer_inputs(rows, fields, width, size, residual, biased)
        want = gradients(plain_form, inputs, torch.float64)
        for backend in ("torch", "reference"):
            run = runner(backend, residual=residual, rectify=rectify)
            found = gradients(run, inputs, torch.float64)
            assert max(distance(*pair) for pair in zip(found, want, strict=True)) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("residual", [True, False])
def test_interacting_layer_in_low_precision(dtype: torch.dtype, residual: bool) -> None:
    """Every sum that enters a ReLU is far from zero, so that no rounding changes its side."""
    x, weight, bias = layer_inputs(6, 39, 16, 64, residual, True)
    inputs = [x.abs(), weight.abs(), bias.abs()]
    run = runner("torch", residual=residual, rectify=True)
    assert_within_budget(run, composed(residual, True), inputs, dtype)


def test_layer_in_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "_BLOCK_FLOATS", 2 * 8 * (24 + 2 * 8))
    inputs = layer_inputs(5, 7, 4, 6, True, True)
    found, want = (
        gradients(run, inputs, torch.float64)
        for run in (runner("torch", residual=True, rectify=True), composed(True, True))
    )
    assert max(distance(*pair) for pair in zip(found, want, strict=True)) < 1e-14


@pytest.mark.parametrize("fields", [6, 7])
@pytest.mark.parametrize(("heads", "width"), [(4, 8), (3, 8), (2, 4), (1, 3), (6, 5), (2, 17)])
def test_narrow_heads_in_groups(heads: int, width: int, fields: int) -> None:
    """Groups of one, some and all heads, each its own columns of shared products."""
    inputs = layer_inputs(3, fields, 5, heads * width, True, True)
    options = {"heads": heads, "scale": 0.7, "rectify": True}
    found, want = (
        gradients(
            lambda *given, kind=kind: (interacting_layer(*given, **options, backend=kind),),
            inputs,
            torch.float64,
        )
        for kind in ("torch", "reference")
    )
    assert max(distance(*pair) for pair in zip(found, want, strict=True)) < 1e-14


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_bad_row_stays_alone(value: float) -> None:
    x, weight, bias = layer_inputs(3, 7, 4, 6, True, True)
    bad = x.clone()
    bad[1, 2] = value
    for one in (x, bad):
        one.requires_grad_()
    out, spoilt = (interacting_layer(one, weight, bias, heads=2, rectify=True) for one in (x, bad))
    assert torch.equal(spoilt[[0, 2]], out[[0, 2]])
    for one in (out, spoilt):
        one[[0, 2]].sum().backward()
    assert torch.equal(bad.grad[[0, 2]], x.grad[[0, 2]])


def test_layer_gradcheck() -> None:
    given = [one.double().requires_grad_() for one in layer_inputs(2, 3, 4, 4, True, True)]
    run = runner("torch", residual=True, rectify=True)
    assert torch.autograd.gradcheck(run, given)


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, operator = [], layer.interacting_layer

    def spy(*given: Any) -> Any:
        asked.append(given[-1])
        return operator(*given)

    monkeypatch.setattr(layer, "interacting_layer", spy)
    x, weight = layer_inputs(3, 5, 4, 6, True, False)
    run = runner("torch", residual=True, rectify=False)
    (without,) = run(x, weight)
    with torch.no_grad():
        run(x, weight.requires_grad_())
    (trained,) = run(x, weight)
    assert asked == [False, False]
    torch.testing.assert_close(without, trained)
    assert operator(x, weight, None, 2, 0.7, True, False, False)[1].numel() == 0


def test_dropout_drops_attention() -> None:
    x, weight = layer_inputs(50, 4, 5, 6, False, False)
    settings = {"heads": 2, "residual": False, "rectify": False}
    whole = interacting_layer(x, weight, None, **settings)
    dropped = interacting_layer(x, weight, None, dropout=0.9, **settings)
    assert (dropped == 0).float().mean() > (whole == 0).float().mean() + 0.2
    nearly = interacting_layer(x, weight, None, dropout=1e-12, **settings)
    torch.testing.assert_close(nearly, whole)


def test_autocast_computes_in_bfloat16() -> None:
    x, weight = (one.requires_grad_() for one in layer_inputs(6, 4, 5, 6, True, False))
    q = torch.randn(2, 2, 5, 8)

    def run() -> tuple[Tensor, Tensor]:
        return interacting_layer(x, weight, heads=2, rectify=True), field_attention(q, q, q)

    exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run()
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert distance(one, other) < 0.02
    (gradient,) = torch.autograd.grad(rough[0].sum(), weight)
    (expected,) = torch.autograd.grad(exact[0].sum(), weight)
    assert gradient.dtype == torch.float32
    assert distance(gradient, expected) < 0.05


def test_operators_are_registered() -> None:
    """opcheck: schema, fake tensors, autograd and tracing of the operators themselves."""
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (one.to(dtype).requires_grad_() for one in operands((3, 2, 5, 4, 6)))
        torch.library.opcheck(plain.field_attention.registered, (q, k, v, 0.5))
        x, weight, bias = (one.to(dtype).requires_grad_() for one in layer_inputs(3, 5, 4, 6, True, True))
        for keep in (True, False):
            given = (x, weight, bias, 2, 0.5, True, True, keep)
            tests = ("test_schema", "test_autograd_registration", "test_faketensor")
            torch.library.opcheck(
                layer.interacting_layer.registered,
                given,
                test_utils=(*tests, "test_aot_dispatch_dynamic")[: 3 + keep],
            )


class Both(torch.nn.Module):
    """A layer and an attention, as a model calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(32, 6))

    def forward(self, x: Tensor) -> Tensor:
        out = interacting_layer(x, self.weight, heads=2, rectify=True).unflatten(-1, (2, 4)).transpose(1, 2)
        return field_attention(out, out, out).sin()


def test_compiles_into_one_graph() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    block, x = Both(), torch.randn(3, 5, 6, requires_grad=True)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 7):
        x = torch.randn(rows, 5, 6, requires_grad=True)
        found, want = compiled(x), block(x)
        torch.testing.assert_close(found, want)
        for one, other in zip(
            *(torch.autograd.grad(out.sum(), (x, block.weight)) for out in (found, want)), strict=True
        ):
            assert distance(one, other) < 1e-5  # of the whole: single entries that cancel round by more


def test_exports_plain_operations() -> None:
    """A graph that needs no graphrec to run, for any number of rows; a named backend stays an operator."""
    block, x = Both(), torch.randn(3, 5, 6)
    made = torch.export.export(block, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2)},))
    assert "graphrec" not in str(made.graph)
    more = torch.randn(9, 5, 6)
    torch.testing.assert_close(made.module()(more), block(more))

    class One(torch.nn.Module):
        def forward(self, q: Tensor) -> Tensor:
            return field_attention(q, q, q, backend="torch")

    q = torch.randn(2, 1, 5, 4)
    made = torch.export.export(One(), (q,))
    assert "graphrec.field_attention" in str(made.graph)
    torch.testing.assert_close(made.module()(q), field_attention(q, q, q))


def test_checkpointing_gives_the_same_gradients() -> None:
    block, x = Both(), torch.randn(3, 5, 6, requires_grad=True)
    found, want = checkpoint(block, x, use_reentrant=False), block(x)
    (one,), (other,) = (torch.autograd.grad(out.sum(), x) for out in (found, want))
    assert torch.equal(one, other)


def test_large_results_are_aligned_memory_of_their_own() -> None:
    first, second = (blocks.fresh((1 << 20, 3), torch.float32) for _ in range(2))
    assert first.shape == (1 << 20, 3)
    assert first.is_contiguous()
    assert first.data_ptr() % 64 == 0
    first.fill_(1.0)
    second.fill_(2.0)
    assert first.sum() == 3 << 20


ROW = torch.zeros(2, 3, 4)
HEAD = torch.zeros(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: field_attention(HEAD, HEAD, HEAD[:, :, :2]), r"\(1, 2, 2, 4\)"),
        (lambda: field_attention(HEAD, HEAD[..., :3], HEAD), r"\(1, 2, 3, 3\)"),
        (lambda: field_attention(ROW, ROW, ROW), r"got \(2, 3, 4\)"),
        (lambda: field_attention(HEAD, HEAD, HEAD.double()), "v is torch.float64"),
        (lambda: field_attention(HEAD.int(), HEAD.int(), HEAD.int()), "floating point, got torch.int32"),
        (lambda: field_attention(HEAD, HEAD, HEAD, backend="cuda"), "backend='cuda'"),
        (lambda: field_attention(HEAD, HEAD, HEAD, backend="triton"), "backend='triton' cannot run"),
        (lambda: interacting_layer(HEAD, ROW[0], heads=1), r"x of shape \(1, 2, 3, 4\)"),
        (lambda: interacting_layer(ROW, torch.zeros(7, 4), heads=2), r"\(7, 4\) must be \(4 heads d', 4\)"),
        (lambda: interacting_layer(ROW, torch.zeros(8, 3), heads=2), r"\(8, 3\)"),
        (lambda: interacting_layer(ROW, torch.zeros(8, 4), heads=0), "heads=0"),
        (lambda: interacting_layer(ROW, torch.zeros(8, 4), torch.zeros(7), heads=2), r"must be \(8,\)"),
        (lambda: interacting_layer(ROW, torch.zeros(8, 4), heads=2, dropout=1.5), "dropout=1.5"),
        (lambda: interacting_layer(ROW, torch.zeros(8, 4).half(), heads=2), "weight is torch.float16"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "fields"), [(2, 5), (2, 70), (1500, 14)])
def test_few_rows_and_many_fields_in_evaluation(batch: int, fields: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(batch, 1, fields, 8).to(dtype) for _ in range(3))
    with torch.no_grad():
        mine = field_attention(q, k, v)
    wanted = field_attention(*(one.double() for one in (q, k, v)), backend="reference")
    assert mine.dtype == dtype
    assert (mine - wanted).norm() < (1e-5 if dtype == torch.float32 else 1e-2) * wanted.norm()


@pytest.mark.parametrize("slow", [False, True])
def test_emulated_types_are_computed_in_float32(slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer and an attention whose 16 bits the processor has, or has not."""
    for module in (operator, plain):
        monkeypatch.setattr(module, "emulated", lambda dtype: slow and dtype == torch.bfloat16)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 6, 8), torch.randn(4 * 2 * 5, 8), torch.randn(4 * 2 * 5)
    given = [one.bfloat16().requires_grad_() for one in (x, weight, bias)]
    wide = [one.detach().double().requires_grad_() for one in given]
    mine = interacting_layer(*given, heads=2)
    wanted = interacting_layer(*wide, heads=2, backend="reference")
    assert mine.dtype == torch.bfloat16
    assert (mine - wanted).norm() < 2e-2 * wanted.norm()
    grads, exact = (torch.autograd.grad(one.sum(), of) for one, of in ((mine, given), (wanted, wide)))
    for one, other in zip(grads, exact, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).norm() < 3e-2 * other.norm()
    q = torch.randn(2, 2, 6, 8).bfloat16().requires_grad_()
    field_attention(q, q, q).sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()
