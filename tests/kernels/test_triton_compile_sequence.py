"""The Triton kernels along a sequence compile for sm_80, sm_90 and sm_100 without a GPU; none spills."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiling import ARCHITECTURES, compile_kernels, needs_compiler

pytestmark = needs_compiler


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile_sequence.py", arch, tmp_path)
    assert len(found) >= 10
    for name, facts in found.items():
        assert facts["shared"] <= 48 * 1024, (name, facts)  # several programs fit on a multiprocessor
        assert facts["spilled"] == 0, (name, facts)
