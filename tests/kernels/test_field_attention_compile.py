"""The kernels of attention among fields compile for sm_80, sm_90 and sm_100 without a GPU, within limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiling import ARCHITECTURES, SHARED_LIMIT, compile_kernels, needs_compiler

pytestmark = needs_compiler

SPILL_LIMIT = {(80, "backward fp32 39 32 True"): 6400}
"""Bytes per thread where they pass 512: float32 products on sm_80 hold operands in registers, in parts."""


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile_fields.py", arch, tmp_path)
    assert len(found) == 8
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT[arch], (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT.get((arch, name), 512), (name, facts)
    if arch == 90:
        assert found["backward bf16 39 32 True"]["wgmma"] > 0
