"""Triton kernels run in their own process, on a GPU or interpreted: ``pytest -m triton tests/kernels``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Turn the interpreter on before anything imports triton, which reads the variable on import."""
    if config.option.markexpr == "triton":
        import torch

        if not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _poisoned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a Triton kernel forgets to write shows up as NaN, or as -7 among whole numbers."""
    if request.node.get_closest_marker("triton") is None:
        return
    import torch
    from torch import Tensor

    def fill(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def empty(*args: Any, **kwargs: Any) -> Tensor:
            made = make(*args, **kwargs)
            if made.requires_grad or made.dtype == torch.bool:
                return made
            return made.fill_(torch.nan if made.is_floating_point() else -7)

        return empty

    monkeypatch.setattr(torch, "empty", fill(torch.empty))
    monkeypatch.setattr(Tensor, "new_empty", fill(Tensor.new_empty))
