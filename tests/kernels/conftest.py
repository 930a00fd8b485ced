"""Triton kernels run in their own process, on a GPU or interpreted: ``pytest -m triton tests/kernels``."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Turn the interpreter on before anything imports triton, which reads the variable on import."""
    if config.option.markexpr == "triton":
        import torch

        if not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"
