"""Every kernel of attention compiles for sm_80, sm_90 and sm_100 without a GPU, within its resources."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from compiling import ARCHITECTURES, SHARED_LIMIT, compile_kernels, needs_compiler

pytestmark = needs_compiler

SPILL_LIMIT = {"backward_bias": 512}
"""Bytes per thread; the gradient of a bias keeps a whole tile of sums besides a tile of logits."""

SPILLED_BY_3_8 = {("backward_kv fp32 32", 100): 280}
"""What triton 3.8, and no other version tried, spills beyond the limit: bytes by kernel and architecture."""


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile.py", arch, tmp_path)
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT[arch], (name, facts)
        known = SPILLED_BY_3_8.get((name, arch), 0) if version("triton").startswith("3.8.") else 0
        assert facts["spilled"] <= max(SPILL_LIMIT.get(name.split()[0], 256), known), (name, facts)
    if arch == 90:
        for kernel in ("forward", "backward_q", "backward_kv"):
            assert found[f"{kernel} bf16 64"]["wgmma"] > 0, kernel
