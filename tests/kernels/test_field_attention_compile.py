"""The kernels of attention among fields compile for sm_80, sm_90 and sm_100 without a GPU, within limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_triton_compile import SHARED_LIMIT

from graphrec.kernels.backends import triton_missing

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
]

SPILL_LIMIT = {(80, "backward fp32 39 32 True"): 6400}
"""Bytes per thread where they pass 512: float32 products on sm_80 hold operands in registers, in parts."""


@pytest.mark.parametrize("arch", sorted(SHARED_LIMIT))
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("triton_compile_fields.py")
    done = subprocess.run(
        [sys.executable, str(script), str(arch)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found) == 8
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT[arch], (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT.get((arch, name), 512), (name, facts)
    if arch == 90:
        assert found["backward bf16 39 32 True"]["wgmma"] > 0
