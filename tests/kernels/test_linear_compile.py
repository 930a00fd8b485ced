"""The kernels of linear attention compile for sm_80, sm_90 and sm_100 without a GPU, within their resources.

The compiler runs in a process of its own, where the interpreter is off.
"""

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

SHARED_LIMIT = 100 * 1024
"""Bytes a program may use, so that two fit a multiprocessor of sm_90."""

SPILL_LIMIT = {"backward_qk": 320}
"""Bytes per thread; that kernel keeps two gradients and the pairs of a chunk. The others 32."""


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_kernels_compile(arch: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("triton_compile_linear.py")
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
    assert {name.split()[0] for name in found} == {"states", "output", "backward_v", "backward_qk"}
    for name, facts in found.items():
        assert facts["shared"] <= SHARED_LIMIT, (name, facts)
        assert facts["spilled"] <= SPILL_LIMIT.get(name.split()[0], 32), (name, facts)
        assert facts["tensor_cores"] > 0, (name, facts)
