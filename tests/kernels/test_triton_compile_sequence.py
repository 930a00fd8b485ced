"""The Triton kernels along a sequence compile for sm_80, sm_90 and sm_100 without a GPU; none spills."""

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


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("triton_compile_sequence.py")
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
    assert len(found) >= 10
    for name, facts in found.items():
        assert facts["shared"] <= 48 * 1024, (name, facts)  # several programs fit on a multiprocessor
        assert facts["spilled"] == 0, (name, facts)
