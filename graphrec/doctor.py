"""What this machine and installation offer: versions, devices, CPU features, kernels, extras, cache.

`examine` gathers facts as (section, name, value, note) rows; it never raises for something that is missing,
since saying so is its job.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_PACKAGES = ("graphrec", "torch", "triton", "numpy", "polars", "pyarrow", "scikit-learn", "lightning-fabric",
             "pydantic", "typer", "rich", "safetensors", "matplotlib")  # fmt: skip
_EXTRAS = {
    "pandas": ("pandas",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "tensorboard": ("tensorboard",),
}


class Finding(NamedTuple):
    """One line of the report."""

    section: str
    name: str
    value: str
    note: str = ""


def examine(cache_dir: str | Path | None = None) -> list[Finding]:
    """All findings, in the order in which they are printed."""
    return [*_versions(), *_processor(), *_devices(), *_kernels(), *_extras(), *_cache(cache_dir)]


def _versions() -> list[Finding]:
    python = Finding("versions", "python", platform.python_version(), sys.executable)
    return [python, *(Finding("versions", name, _version(name)) for name in _PACKAGES)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> list[Finding]:
    import torch

    def has(probe: str) -> bool:
        return bool(getattr(torch.cpu, probe, bool)())

    bf16, amx = has("_is_avx512_bf16_supported"), has("_is_amx_tile_supported")
    level = torch.backends.cpu.get_cpu_capability()
    fast = (
        "bf16-mixed precision pays here" if bf16 or amx else "stay with precision 32-true: bf16 is emulated"
    )
    memory = (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    )
    return [
        Finding("processor", "machine", f"{platform.machine()}, {platform.system()}"),
        Finding("processor", "vector units", level),
        Finding("processor", "avx512_bf16", _yes(bf16), fast),
        Finding("processor", "amx", _yes(amx)),
        Finding("processor", "cores", f"{_usable_cores()} usable of {os.cpu_count()}"),
        Finding("processor", "threads", f"{torch.get_num_threads()}", "OMP_NUM_THREADS changes it"),
        Finding("processor", "memory", f"{memory:.1f} GiB"),
    ]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[Finding]:
    import torch

    findings = [Finding("devices", "cpu", "available")]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        size = f"{card.total_memory / 2**30:.0f} GiB"
        findings.append(
            Finding("devices", f"cuda:{index}", card.name, f"{size}, capability {card.major}.{card.minor}")
        )
    if len(findings) == 1:
        built = (
            f"torch was built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else "this torch is CPU only"
        )
        findings.append(Finding("devices", "cuda", "none", built))
    mps = torch.backends.mps.is_available()
    return [*findings, Finding("devices", "mps", "available" if mps else "none")]


def _kernels() -> list[Finding]:
    import torch

    from graphrec.kernels import backends, explain
    from graphrec.kernels.catalogue import CALLS

    missing, on = backends.triton_missing(), backends.interpreting()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    findings = [
        Finding("kernels", "triton", "missing" if missing else _version("triton"), missing or ""),
        Finding("kernels", "interpreter", "on" if on else "off", "TRITON_INTERPRET=1 runs Triton on a CPU"),
        *_settings_table(),
    ]
    for call in CALLS.values():
        args, kwargs = call.make(device)
        told = explain(call.operator, *args, **kwargs)
        findings.append(Finding("kernels", call.name, told.backend, told.reason))
    return findings


def _settings_table() -> list[Finding]:
    """Which architectures the table of launch settings covers, and what it holds for the one here."""
    from graphrec.kernels import table

    try:
        rows = list(table.rows().values())
    except ValueError as error:
        return [Finding("kernels", "settings", "unreadable", str(error))]
    kinds = sorted({row.architecture for row in rows} - {"interpreter"})
    measured = sum(row.milliseconds is not None for row in rows)
    here = table.architecture()
    own = sum(row.architecture == here != table.ANY for row in rows)
    note = "python -m graphrec.kernels.tune measures on a GPU"
    if here != table.ANY:
        note = f"{own} for {here}, which is here" if own else f"none of its own for {here}; {note}"
    size = f"{len(rows)} rows for {', '.join(kinds)}; {measured} measured"
    return [Finding("kernels", "settings", size, note)]


def _extras() -> list[Finding]:
    findings = []
    for extra, packages in _EXTRAS.items():
        missing = [p for p in packages if find_spec(p) is None]
        value = (
            f"missing {', '.join(missing)}" if missing else ", ".join(f"{p} {_version(p)}" for p in packages)
        )
        findings.append(
            Finding("extras", extra, value, f"pip install 'graphrec[{extra}]'" if missing else "")
        )
    return findings


def _cache(cache_dir: str | Path | None) -> list[Finding]:
    from graphrec.pipelines.tables.cache import default_dir

    folder = Path(cache_dir) if cache_dir else default_dir()
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
    note = "encoded tables; safe to delete" if size else "empty"
    return [Finding("cache", str(folder), f"{size / 2**20:.1f} MiB", note)]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
