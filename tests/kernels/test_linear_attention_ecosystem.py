"""Linear attention and the delta rule compile, export, run under autocast, are checkpointed and explained."""

from __future__ import annotations

import pytest
import torch
from kernel_tools import distance
from test_linear_attention import FORMS, drawn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphrec.kernels import delta_rule, explain, gated_linear_attention, linear_attention
from graphrec.kernels.linear.carry import carry_states


class Mixer(torch.nn.Module):
    """One form of the operators, from a dictionary's values in order."""

    def __init__(self, form: str, names: tuple[str, ...]) -> None:
        super().__init__()
        self.form, self.names = form, names

    def forward(self, *given: Tensor) -> Tensor:
        out, state = FORMS[self.form](dict(zip(self.names, given, strict=True)), return_state=True, chunk=8)
        return out.sin().sum() + state.cos().sum()  # type: ignore[no-any-return]


def made(form: str) -> tuple[Mixer, list[Tensor]]:
    x = drawn(20, torch.float32)
    used = [name for name in x if name not in UNUSED[form]]
    return Mixer(form, tuple(used)), [x[name].requires_grad_() for name in used]


UNUSED = {
    "linear": ("beta", "decay", "wide"),
    "per head": ("beta", "wide"),
    "per dimension": ("beta", "decay"),
    "delta": ("decay", "wide"),
    "gated delta": ("wide",),
}


@pytest.mark.parametrize("form", FORMS)
def test_compiles_into_one_graph_and_checkpoints(form: str) -> None:
    torch._dynamo.reset()
    mixer, given = made(form)
    want = torch.autograd.grad(mixer(*given), given)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    for other in (compiled(*given), checkpoint(mixer, *given, use_reentrant=False)):
        for one, exact in zip(torch.autograd.grad(other, given), want, strict=True):
            torch.testing.assert_close(one, exact)


@pytest.mark.parametrize("form", FORMS)
def test_exports(form: str) -> None:
    mixer, given = made(form)
    given = [one.detach() for one in given]
    exported = torch.export.export(mixer, tuple(given))
    torch.testing.assert_close(exported.module()(*given), mixer(*given))


@pytest.mark.parametrize("form", FORMS)
def test_autocast(form: str) -> None:
    """Inside autocast float32 inputs give what bfloat16 products of them give, and gradients arrive."""
    mixer, given = made(form)
    x = dict(zip(mixer.names, given, strict=True))
    want = FORMS[form](x, chunk=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = FORMS[form](x, chunk=8)
    assert distance(out, want) < 0.03
    grads = torch.autograd.grad(out.float().square().sum(), given)
    exact = torch.autograd.grad(want.square().sum(), given)
    for one, other in zip(grads, exact, strict=True):
        assert one.dtype == torch.float32
        assert distance(one, other) < 0.06


@pytest.mark.parametrize("rows", [1, 3, "matrix"])
def test_states_are_registered(rows: int | str) -> None:
    """opcheck: schema, fake tensors, autograd and tracing; and the gradient's gradient."""
    torch.manual_seed(0)
    shape = (2, 4, 3, 3) if rows == "matrix" else (2, 4, rows, 1)
    step, add, first = (
        torch.randn(*size, dtype=torch.float64, requires_grad=True)
        for size in (shape, (2, 4, 3, 5), (2, 3, 5))
    )
    arguments = (step, add, first, rows == "matrix")
    torch.library.opcheck(carry_states.registered, arguments)
    assert torch.autograd.gradgradcheck(carry_states, arguments)


def test_explain_names_the_backend() -> None:
    x = drawn(20, torch.float32)
    q, k, v = x["q"], x["k"], x["v"]
    assert explain(linear_attention, q, k, v).backend == "torch"
    told = explain(gated_linear_attention, q, k, v, x["decay"])
    assert told.backend == "torch"
    assert "triton" in told.refused
    assert explain(delta_rule, q, k, v, x["beta"], backend="reference").backend == "reference"


@pytest.mark.parametrize("form", FORMS)
def test_memory_grows_with_the_length_and_holds_no_state_per_position(form: str) -> None:
    """What the backward keeps, by torch's own count of saved tensors."""

    def kept(length: int) -> int:
        sizes: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return x

        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 1, length, 64).requires_grad_() for _ in range(3))
        gate, wide = (-torch.rand(1, 1, length, *rest).requires_grad_() for rest in ((), (64,)))
        x = {"q": q, "k": k, "v": v, "beta": -gate, "decay": gate, "wide": wide}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one):
            out = FORMS[form](x)
            total = sum(sizes.values())
            out.sum().backward()
        return total

    short, long = kept(512), kept(2048)
    assert long < 4.5 * short
    assert long < 2048 * 64 * 64 * 4 / 2  # half of a state per position
