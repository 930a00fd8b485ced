"""CPU time of a process tree and peak memory, from /proc; needs the standard library alone.

The workers run in the peers' environments, so nothing of graphrec or its dependencies is imported here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


def _processes() -> dict[int, tuple[int, float]]:
    """Process id -> (parent, CPU seconds of it and of its children that have ended)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text(encoding="utf-8")
        except OSError:  # it has ended meanwhile
            continue
        values = text[text.rindex(")") + 2 :].split()  # from "state" on; the name before may hold spaces
        found[int(folder.name)] = (int(values[1]), sum(map(int, values[11:15])) / TICKS)
    return found


def tree(root: int | None = None) -> dict[int, float]:
    """CPU seconds of a process (this one by default) and of each of its descendants."""
    processes = _processes()
    members = {root or os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return {pid: processes[pid][1] for pid in members if pid in processes}


class Clock:
    """Wall and CPU seconds of this process and its descendants since it was made, or since `restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self._wall, self._cpu = time.perf_counter(), sum(tree().values())

    def read(self) -> tuple[float, float]:
        """(wall, CPU) seconds so far."""
        return time.perf_counter() - self._wall, sum(tree().values()) - self._cpu


class Steps:
    """Rows per CPU second of a training loop after its first ``warmup`` steps.

    Call `tick` with the rows of a step before the step begins, and `stop` when the last one has ended. The
    CPU time is that of this process with all its threads; ``tree`` adds other processes, such as loaders.
    """

    def __init__(self, warmup: int) -> None:
        self.warmup, self.steps, self.rows, self.first = warmup, 0, 0, 0.0
        self._mark()

    def _mark(self) -> None:
        self._clock, self._process = Clock(), time.process_time()

    def tick(self, rows: int) -> None:
        """A step begins."""
        if self.steps == self.warmup:
            self.first = self._clock.read()[1]
            self._mark()
        if self.steps >= self.warmup:
            self.rows += rows
        self.steps += 1

    def stop(self) -> dict[str, float]:
        """The figures; ``warmup_cpu`` is what the first steps took, compilation included."""
        process, (wall, whole) = time.process_time() - self._process, self._clock.read()
        return {
            "steps": self.steps - self.warmup,
            "rows_per_cpu_second": round(self.rows / process, 1),
            "rows_per_tree_cpu_second": round(self.rows / max(whole, process), 1),
            "rows_per_second": round(self.rows / wall, 1),
            "warmup_cpu": round(self.first, 2),
        }


def status_mb(key: str) -> float:
    """A figure of /proc/self/status, such as ``VmHWM`` (peak resident) or ``RssAnon``, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


class PeakAnonymous(threading.Thread):
    """Samples the anonymous resident memory: all but pages of mapped files, which the system can drop."""

    def __init__(self, every: float = 0.02) -> None:
        super().__init__(daemon=True)
        self.every, self.peak, self._ended = every, 0.0, threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._ended.wait(self.every):
            self.peak = max(self.peak, status_mb("RssAnon"))

    def stop(self) -> float:
        """The peak in MB."""
        self._ended.set()
        self.join()
        return self.peak


def serve(
    read: Callable[[], Any], load: Callable[[], Callable[[Any], Any]], sizes: Sequence[int]
) -> dict[str, float]:
    """CPU seconds of the whole process until a first row is scored, and milliseconds of later calls.

    Args:
        read: Gives rows as a pandas frame; its time does not count.
        load: Reads a model; gives a function from rows to probabilities.
        sizes: Rows per call; medians of as many calls as take a second or so.
    """
    begin = time.process_time()
    rows = read()
    reading = time.process_time() - begin
    score = load()
    score(rows[:1])
    figures = {"first": round(time.process_time() - reading, 2)}
    for size in sizes:
        calls: list[float] = []
        for start in range(0, len(rows) - size, size):
            begin = time.process_time()
            score(rows[start : start + size])
            calls.append(time.process_time() - begin)
            if sum(calls) > 1 and len(calls) >= 5:
                break
        figures[f"ms_{size}"] = round(1000 * statistics.median(calls), 3)
    return figures


def gflops() -> float:
    """Float32 matrix products of this machine in 1e9 operations per CPU second, to compare loaded runs."""
    import torch

    a = torch.randn(512, 512)
    a @ a
    begin = time.process_time()
    for _ in range(40):
        a @ a
    return round(40 * 2 * 512**3 / (time.process_time() - begin) / 1e9, 1)


def settings() -> dict[str, Any]:
    """The JSON that `common.work` passes."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def finish(libraries: list[str], **figures: Any) -> None:
    """Print the result line."""
    found = {name: importlib.metadata.version(name) for name in libraries}
    print("RESULT", json.dumps({**figures, "versions": found}), flush=True)
