"""explain tells what runs, how, and why not otherwise; asking for what cannot run raises with the reason."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import graphrec.kernels
from graphrec.kernels import attention, explain, merge, selective_scan
from graphrec.kernels.backends import triton_missing
from graphrec.kernels.catalogue import CALLS, Call
from graphrec.kernels.patterns import Causal, Neighborhood

CHOOSING = [call for call in CALLS.values() if call.backends]


def test_every_operator_is_in_the_catalogue() -> None:
    values = {"CSR", "Explanation", "RelativeBias", "Source", "explain"}
    assert {*CALLS} == {*graphrec.kernels.__all__} - values


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_explains_what_happens(call: Call) -> None:
    args, kwargs = call.make()
    told = explain(call.operator, *args, **kwargs)
    assert told.operator == call.name
    assert told.backend == "torch"
    assert "triton" in told.refused
    assert str(told).startswith(f"{call.name}: torch, because ")


@pytest.mark.parametrize("call", CHOOSING, ids=lambda call: call.name)
def test_a_backend_that_cannot_run_raises_with_the_reason(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    args, kwargs = call.make()
    reason = explain(call.operator, *args, **kwargs).refused["triton"]
    assert reason
    for ask in (call.operator, lambda *a, **k: explain(call.operator, *a, **k)):
        with pytest.raises(ValueError, match="backend='triton' cannot run") as caught:
            ask(*args, **kwargs, backend="triton")
        assert reason in str(caught.value)
    with pytest.raises(ValueError, match=r"backend='cuda' of \w+ must be one of"):
        call.operator(*args, **kwargs, backend="cuda")


@pytest.mark.parametrize("call", CHOOSING, ids=lambda call: call.name)
def test_what_was_asked_for(call: Call) -> None:
    args, kwargs = call.make()
    told = explain(call.operator, *args, **kwargs, backend="reference")
    assert (told.backend, told.reason) == ("reference", "it was asked for")


def test_explaining_computes_nothing_and_leaves_nothing_behind() -> None:
    q = torch.randn(1, 1, 4, 2)
    ran: list[bool] = []

    def operator(x: Tensor) -> Tensor:
        out: Tensor = attention(x, x, x)
        ran.append(True)
        return out

    assert explain(operator, q).details == {"computed by": "attention"}
    assert not ran
    operator(q)
    assert ran


def test_details_of_attention() -> None:
    q = torch.randn(1, 2, 784, 16)
    told = explain(attention, q, q, q, Neighborhood((28, 28), 7))
    assert told.details["density"] == 0.0625
    assert "groups of" in told.details["route"]
    assert "all pairs" in explain(attention, q, q, q, Causal()).details["route"]
    with pytest.raises(ValueError, match=triton_missing() or "float64"):
        explain(attention, q.double(), q.double(), q.double(), backend="triton")
    with pytest.raises(ValueError, match="k of shape"):
        explain(attention, q, q[..., :3], q)


def test_tiles_are_told_where_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    q = torch.randn(1, 2, 784, 16)
    told = explain(attention, q, q, q, Neighborhood((28, 28), 7), backend="triton").details
    assert told["tiles"] == "64 x 64"
    assert told["tiles computed"] == pytest.approx(0.349, abs=1e-3)
    assert "row interpreter" in told["settings from"]


def test_settings_are_told_where_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name in ("field_attention", "gated_linear_attention", "gather_attention", "linear_attention", "scan"):
        args, kwargs = CALLS[name].make()
        told = explain(CALLS[name].operator, *args, **kwargs, backend="triton").details
        assert "warps" in told["settings"], name
        assert told["settings from"] == "static limits (a rule, no row)"
    args, kwargs = CALLS["spmm"].make()
    assert explain(CALLS["spmm"].operator, *args, **kwargs).details == {"edges": 12, "density": 0.342857}


def test_operators_without_a_choice_and_those_made_of_others() -> None:
    q = torch.randn(1, 2, 5, 3)
    assert "same plain torch" in explain(merge, [q], [q[..., 0]]).reason
    told = explain(selective_scan, *torch.randn(2, 1, 5, 3), torch.randn(3, 4), *torch.randn(2, 1, 5, 4))
    assert told.operator == "selective_scan"
