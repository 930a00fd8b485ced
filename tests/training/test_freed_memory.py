"""A process that trains on a CPU stops giving memory back between steps, unless it was told otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from graphrec.training import freed_memory
from graphrec.training.freed_memory import VARIABLE, keep_freed_memory

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", VARIABLE)
FAULTS = """
import ctypes, resource, torch
from graphrec.training import TrainConfig, Trainer

for threshold in (-1, -3):  # as a process begins: the system takes back what is freed
    assert ctypes.CDLL(None).mallopt(threshold, 1 << 17)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        kept = [torch.zeros(2 << 20) for _ in range(8)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
Trainer(TrainConfig(accelerator="cpu", progress=False)).device
faults()
print(faults())
"""


def test_a_step_takes_no_new_pages_once_a_trainer_runs() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is not glibc")
    alone = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS], env=alone, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    before, after = map(int, run.stdout.split())
    assert after < before / 10, (before, after)  # 64 MB in each of five rounds


@pytest.mark.parametrize(
    ("name", "value"),
    [(VARIABLE, "0"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_settings_of_the_user_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("mallopt was called")

    monkeypatch.setattr(freed_memory, "c_function", lambda *_: refuse)
    for other in SETTINGS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory, "c_function", lambda *_: None)
    assert not keep_freed_memory()
