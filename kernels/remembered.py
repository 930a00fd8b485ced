"""Tensors that are made once and kept must not carry the state of the call that happened to make them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import _disable_current_modes

Given = ParamSpec("Given")
Made = TypeVar("Made")


def kept(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Run a function outside of inference mode, of a default device, and of an export that is under way.

    A plan made inside ``torch.inference_mode`` would otherwise fail in the next training step, and one made
    while ``torch.export`` traces would hold no numbers.
    """

    @wraps(make)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        if torch.compiler.is_dynamo_compiling():
            return make(*args, **kwargs)
        with _disable_current_modes(), torch.inference_mode(False), _on_cpu():
            return make(*args, **kwargs)

    return run


def constant(function: Any) -> Any:
    """`torch.compiler.assume_constant_result`, by its mark: itself, it loads the compiler, for seconds."""
    function._dynamo_marked_constant = True
    return function


def _on_cpu() -> AbstractContextManager[object]:
    """The default device, where it is another one: the mode sends every call through Python."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
