"""Every operator of the catalogue compiles, exports, runs under autocast, and refuses what is wrong."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_tools import distance
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint

from graphrec.kernels.catalogue import CALLS, Call

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
TRAINED = pytest.mark.parametrize(
    "call", [call for call in CALLS.values() if call.gradients], ids=lambda call: call.name
)


class Bound(torch.nn.Module):
    """An operator as a function of its floating-point tensors alone; the rest of its arguments is kept."""

    def __init__(self, call: Call, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.operator = call.operator
        self.flat, self.shape = tree_flatten(call.make(dtype=dtype))
        self.places = [
            place
            for place, one in enumerate(self.flat)
            if isinstance(one, Tensor) and one.is_floating_point()
        ]

    def inputs(self) -> list[Tensor]:
        """Leaves to call with."""
        return [self.flat[place].detach().clone().requires_grad_() for place in self.places]

    def forward(self, *given: Tensor) -> Any:
        flat = list(self.flat)
        for place, one in zip(self.places, given, strict=True):
            flat[place] = one
        args, kwargs = tree_unflatten(flat, self.shape)
        return self.operator(*args, **kwargs)


def gradients(run: Callable[..., Any], given: list[Tensor]) -> list[Tensor]:
    """Outputs, then the gradient of each input under weights that differ from place to place."""
    outputs = [one for one in tree_leaves(run(*given)) if one.requires_grad]
    weights = [torch.linspace(-1, 1, one.numel()).view(one.shape).to(one.dtype) for one in outputs]
    grads = torch.autograd.grad(outputs, given, weights, allow_unused=True)
    return [
        *outputs,
        *(torch.zeros_like(one) if g is None else g for one, g in zip(given, grads, strict=True)),
    ]


@TRAINED
def test_compiles_into_one_graph_with_gradients(call: Call) -> None:
    torch._dynamo.reset()
    bound = Bound(call)
    given = bound.inputs()
    want = gradients(bound, given)
    found = gradients(torch.compile(bound, fullgraph=True, backend="aot_eager"), given)
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other)


@EVERY
def test_exports(call: Call) -> None:
    bound = Bound(call)
    given = tuple(one.detach() for one in bound.inputs())
    want = bound(*given)
    exported = torch.export.export(bound, given)
    torch.testing.assert_close(exported.module()(*given), want)


@TRAINED
def test_checkpointing_gives_the_same_gradients(call: Call) -> None:
    bound = Bound(call)
    given = bound.inputs()
    again = gradients(lambda *x: checkpoint(bound, *x, use_reentrant=False), given)
    for one, other in zip(again, gradients(bound, given), strict=True):
        assert torch.equal(one, other)


@TRAINED
@pytest.mark.parametrize("mixed", [False, True])
def test_autocast_trains(call: Call, mixed: bool) -> None:
    """Whatever autocast did to the inputs before: float32 ones, or some that a layer has made bfloat16."""
    bound = Bound(call)
    given = bound.inputs()
    want = gradients(bound, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [one.bfloat16() for one in given] if mixed else given
        outputs = [one for one in tree_leaves(bound(*cast)) if one.requires_grad]
    weights = [torch.linspace(-1, 1, one.numel()).view(one.shape).to(one.dtype) for one in outputs]
    found = [*outputs, *torch.autograd.grad(outputs, given, weights)]
    for one, other in zip(found, want, strict=True):
        assert distance(one, other) < 0.05


class Registered(TorchDispatchMode):
    """Remembers calls of the package's own torch operators."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[Any, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "graphrec":
            self.seen.setdefault(func, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


@EVERY
def test_registered_operators_pass_opcheck(call: Call) -> None:
    """Schema, fake tensors, autograd and tracing of the torch operators that a call and its backward use."""
    bound = Bound(call)
    with Registered() as mode:
        gradients(bound, bound.inputs()) if call.gradients else bound(*bound.inputs())
    for operator, (args, kwargs) in mode.seen.items():
        once = "backward" in operator.name()  # those need no gradients of their own

        def fresh(one: Any, once: bool = once) -> Any:
            if not isinstance(one, Tensor):
                return one
            return one.detach().clone().requires_grad_(one.is_floating_point() and not once)

        torch.library.opcheck(operator, tree_map(fresh, args), tree_map(fresh, kwargs))


def wrong(x: Tensor, what: str) -> Tensor:
    """A tensor that no operator can take in place of ``x``."""
    if what == "shape":
        return x.unsqueeze(0).unsqueeze(0)
    return x.int() if what == "dtype" else x.to("meta")


@EVERY
@pytest.mark.parametrize("what", ["shape", "dtype", "device"])
def test_wrong_tensors_are_named(call: Call, what: str) -> None:
    """Each floating-point tensor in turn is of no shape that fits, of integers, or on another device."""
    bound = Bound(call)
    given = [one.detach() for one in bound.inputs()]
    if what == "device" and sum(isinstance(one, Tensor) for one in bound.flat) == 1:
        pytest.skip("its only tensor cannot disagree with another")
    names = "|".join(re.escape(name).rstrip("s") for name in inspect.signature(call.operator).parameters)
    for place, one in enumerate(given):
        bad = [*given[:place], wrong(one, what), *given[place + 1 :]]
        with pytest.raises(ValueError, match=rf"\b({names})") as caught:
            bound(*bad)
        told = str(caught.value)
        if what == "shape":
            assert re.search(r"\(\d+(, \d+)*,?\)", told), told


def test_triton_is_not_needed() -> None:
    """With triton out of reach every operator imports and computes, and says what is missing."""
    code = """
import sys
sys.modules["triton"] = None
from graphrec.kernels import explain
from graphrec.kernels.catalogue import CALLS
told = {}
for call in CALLS.values():
    args, kwargs = call.make(grad=True)
    call.operator(*args, **kwargs)
    if call.backends:
        why = explain(call.operator, *args, **kwargs).refused["triton"]
        told[why] = told.get(why, 0) + 1
assert told["the package triton is not installed"] >= 10, told
assert not [name for name in sys.modules if name.startswith("triton.")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


AS_KERNELS = """
import importlib, torch
from graphrec.kernels import scan
importlib.import_module("kernels")
before = scan(torch.rand(1, 3, 1), torch.ones(1, 3, 1))
compiled = torch.compile(scan, backend="eager", fullgraph=True)
compiled(torch.rand(1, 3, 1), torch.ones(1, 3, 1))
try:
    importlib.import_module("kernels.scan")
except ImportError as error:
    print(error)
"""


def test_operators_survive_an_import_of_the_folder() -> None:
    """Hugging Face transformers imports what is called ``kernels``; in a checkout that is this folder."""
    done = subprocess.run(
        [sys.executable, "-c", AS_KERNELS], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "import that, its operators exist once" in done.stdout
