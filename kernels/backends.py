"""Which backend runs an operator, and why the others do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

Backend = Literal["reference", "torch", "triton"]

NO_KERNEL = "it has no Triton kernel"

_TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Choice:
    """The backend that runs, the reason, and why each other one was passed over."""

    backend: Backend
    reason: str
    refused: dict[str, str] = field(default_factory=dict)


class Chosen(Exception):
    """Carries a choice out of an operator that runs only to find out what it would choose."""

    def __init__(self, operator: str, choice: Choice) -> None:
        super().__init__(f"{operator}: {choice.backend}")
        self.operator, self.choice = operator, choice


_STOPPING: ContextVar[bool] = ContextVar("stopping", default=False)


def choice_of(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Chosen | None:
    """What an operator chooses for these arguments, found by running it up to that point.

    Returns:
        The first choice made, or None when the operator returned without making one.
    """
    token = _STOPPING.set(True)
    try:
        operator(*args, **kwargs)
    except Chosen as found:
        return found
    finally:
        _STOPPING.reset(token)
    return None


def asking() -> bool:
    """Whether operators run only until they have chosen a backend."""
    return _STOPPING.get()


_TRITON_MISSING = None if find_spec("triton") else "the package triton is not installed"


def triton_missing() -> str | None:
    """Why Triton cannot be imported here, or None."""
    return _TRITON_MISSING


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on a CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def triton_refusal(*tensors: Tensor) -> str | None:
    """Why Triton cannot run on these tensors, or None."""
    if missing := triton_missing():
        return missing
    wrong = next(
        (one.dtype for one in tensors if one.is_floating_point() and one.dtype not in _TRITON_DTYPES), None
    )
    if wrong is not None:
        return f"its kernels take float32, float16 and bfloat16, not {str(wrong).removeprefix('torch.')}"
    if tensors[0].device.type != "cuda" and not interpreting():
        return f"the tensors are on {tensors[0].device.type}, and TRITON_INTERPRET=1 is not set"
    return None


def plainly(requested: str | None, x: Tensor) -> bool:
    """Whether torch's backend runs, without a look at anything else: on a CPU, where none is asked for.

    Operators that take microseconds ask this before they list what other backends lack for :func:`choose`.
    """
    if requested is not None or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not (_STOPPING.get() or interpreting())


def choose(operator: str, requested: str | None, refusals: dict[str, str | None]) -> Choice:
    """The backend to run: the requested one, or the first of Triton and torch that can.

    Args:
        operator: its name, for messages.
        requested: "reference", "torch", "triton", or None to choose.
        refusals: for every backend that the operator has, why it cannot run, or None.

    Raises:
        ValueError: the requested backend does not exist or cannot run; the message says why.
    """
    choice = _choose(operator, requested, {"triton": NO_KERNEL, **refusals})
    if not torch.compiler.is_compiling() and _STOPPING.get():
        raise Chosen(operator, choice)
    return choice


def _choose(operator: str, requested: str | None, refusals: dict[str, str | None]) -> Choice:
    refused = {name: why for name, why in refusals.items() if why}
    if requested is not None:
        if requested not in refusals:
            raise ValueError(f"backend={requested!r} of {operator} must be one of {sorted(refusals)}")
        if requested in refused:
            raise ValueError(f"backend={requested!r} cannot run {operator}: {refused[requested]}")
        return Choice(requested, "it was asked for", refused)  # type: ignore[arg-type]
    if "triton" not in refused and not interpreting():
        return Choice("triton", "the tensors are on a CUDA device", refused)
    return Choice("torch", refused.get("triton", "the interpreter runs only what asks for it"), refused)
