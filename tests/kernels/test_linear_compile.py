"""The kernels of linear attention compile for sm_80, sm_90 and sm_100 without a GPU, within limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiling import ARCHITECTURES, compile_kernels, needs_compiler

pytestmark = needs_compiler

SHARED_LIMIT = 100 * 1024
"""Bytes a program may use, so that two fit a multiprocessor of sm_90."""

SPILL_LIMIT = {"backward_qk": 320}
"""Bytes per thread; that kernel keeps two gradients and the pairs of a chunk. The others 32."""


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    found = compile_kernels("triton_compile_linear.py", arch, tmp_path)
    assert {name.split()[0] for name in found} == {"states", "output", "backward_v", "backward_qk"}
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT, (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT.get(name.split()[0], 32), (name, facts)
        assert facts["tensor_cores"] > 0, (name, facts)
