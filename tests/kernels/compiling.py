"""Triton kernels compiled for GPUs that need not be there, each time in a process without the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphrec.kernels.backends import triton_missing

ARCHITECTURES = (80, 90, 100)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that a program may use, by architecture."""

needs_compiler = [
    pytest.mark.triton,
    pytest.mark.skipif(triton_missing() is not None, reason="triton is not installed"),
]
"""Marks of a module."""


def compile_kernels(script: str, arch: int, cache: Path) -> dict[str, dict[str, Any]]:
    """Resources of each kernel that a script beside this file compiles, as it prints them.

    Args:
        script: Its name; it takes the architecture and prints JSON.
        arch: 80, 90 or 100.
        cache: An empty folder, so that the compiler really runs.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), str(arch)],
        env={**environment, "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert found
    return found
