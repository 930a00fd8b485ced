"""The kernels of small groups, listed keys and chosen blocks compile for three architectures."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiling import ARCHITECTURES, SHARED_LIMIT, compile_kernels, needs_compiler

pytestmark = needs_compiler

SPILL_LIMIT = 256
"""Bytes per thread."""


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile_attention.py", arch, tmp_path)
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT[arch], (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT, (name, facts)
        if name.startswith("small"):
            assert facts["tensor_cores"] > 0, (name, facts)
