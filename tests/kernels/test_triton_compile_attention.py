"""The kernels of small groups, listed keys and chosen blocks compile for three architectures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphrec.kernels.backends import triton_missing

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
]

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Shared memory that a program may use, by architecture."""

SPILL_LIMIT = 256
"""Bytes per thread."""


@pytest.mark.parametrize("arch", sorted(SHARED_LIMIT))
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("triton_compile_attention.py")
    done = subprocess.run(
        [sys.executable, str(script), str(arch)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT[arch], (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT, (name, facts)
        if name.startswith("small"):
            assert facts["tensor_cores"] > 0, (name, facts)
