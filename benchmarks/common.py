"""What the benchmark scripts share: interleaved runs in child processes, medians, and the result files.

A script starts one worker per system and repetition, in turn (a, b, c, a, b, c, ...), so that whatever else
the machine does meets all of them alike. A worker is `workers/run_<system>.py`, run by the Python that has
the system installed; it takes its settings as JSON and prints one line ``RESULT {...}``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8")
LIBRARIES = ("torch", "polars", "numpy", "fuxictr", "deepctr_torch", "lightgbm", "catboost", "graphrec")

Run = dict[str, Any]


class WorkerError(RuntimeError):
    """A worker failed; the message holds the end of what it printed."""


@dataclass
class Job:
    """One contender: a worker, the Python that runs it, and its settings."""

    name: str
    worker: str
    python: str
    settings: dict[str, Any]
    runs: list[Run] = field(default_factory=list)


def work(job: Job, threads: int, timeout: float = 7200) -> Run:
    """Run a job once in a process of its own.

    Raises:
        WorkerError: It exits with another status than 0 or prints no result.
    """
    script = HERE / "workers" / f"run_{job.worker}.py"
    variables = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"}
    done = subprocess.run(
        [job.python, str(script), json.dumps({**job.settings, "threads": threads})],
        env={**os.environ, **dict.fromkeys(variables, str(threads)), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise WorkerError(f"{job.name}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return {
        **json.loads(lines[-1].removeprefix("RESULT ")),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }


def interleave(jobs: Sequence[Job], repeats: int, threads: int) -> None:
    """Run every job ``repeats`` times in turn and append what it gives to its ``runs``; tell it on stderr."""
    for repeat in range(repeats):
        for job in jobs:
            job.runs.append(work(job, threads))
            print(
                f"{repeat + 1}/{repeats} {job.name}: {json.dumps(job.runs[-1])}", file=sys.stderr, flush=True
            )


def median(job: Job, key: str) -> float | None:
    """Median of a figure over a job's runs; None when no run gives it."""
    values = [run[key] for run in job.runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def spread(job: Job, key: str, digits: int = 1) -> str:
    """``median (smallest to largest)`` of a figure, or a dash."""
    values = [run[key] for run in job.runs if run.get(key) is not None]
    if not values:
        return "–"
    middle = f"{statistics.median(values):,.{digits}f}"
    return (
        middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
    )


def ratio(job: Job, base: Job, key: str) -> str:
    """How many times a figure of ``job`` is that of ``base``, by medians."""
    ours, theirs = median(job, key), median(base, key)
    return "–" if not ours or not theirs else f"{ours / theirs:.2f}"


def cpu_description() -> dict[str, Any]:
    """Processor, the vector extensions that matter here, cores and memory."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    return {
        "cpu": known.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in FLAGS if flag in known.get("flags", "").split()],
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
    }


def commit() -> str:
    """Commit of the checkout, with ``+`` when it has uncommitted changes outside the results.

    Where the files lie without their history, the environment variable ``GRAPHREC_COMMIT`` tells it.
    """
    if told := os.environ.get("GRAPHREC_COMMIT"):
        return told

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "..", ":(exclude)results")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def parser(description: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """The options that all scripts take."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument(
        "--data", type=Path, help="folder with ctr_1m.parquet and split_1m/ (see make_ctr.py)"
    )
    options.add_argument("--repeats", type=int, default=repeats)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument(
        "--only", nargs="*", metavar="SUBSTRING", help="only the systems whose name contains one"
    )
    options.add_argument("--fuxictr-python", help="Python with fuxictr 2.3.10")
    options.add_argument(
        "--fuxictr-zoo", help="folder model_zoo of a FuxiCTR checkout; the wheel lacks the models"
    )
    options.add_argument("--peer-python", help="Python with deepctr-torch 0.3.0, lightgbm and catboost")
    options.add_argument("--dry", action="store_true", help="print the table, write no result file")
    return options


def available(jobs: Iterable[Job], only: list[str] | None) -> list[Job]:
    """The jobs that have a Python to run them and match ``--only``; says which are left out."""
    chosen = []
    for job in jobs:
        if only and not any(part in job.name for part in only):
            continue
        if job.python:
            chosen.append(job)
        else:
            print(f"left out: {job.name} (no Python given for it)", file=sys.stderr)
    return chosen


def recorded(name: str) -> dict[str, Job]:
    """The jobs of a recorded result, by name. They cannot be run again."""
    facts = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return {
        one["name"]: Job(
            one["name"], "", "", one["settings"], [{"commit": facts["commit"], **run} for run in one["runs"]]
        )
        for one in facts["jobs"]
    }


def with_recorded(jobs: Iterable[Job], name: str) -> list[Job]:
    """The jobs that were run, and those of a recorded result in the places of the others that are in it."""
    known = recorded(name)
    return [job if job.runs else known[job.name] for job in jobs if job.runs or job.name in known]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def versions(jobs: Iterable[Job]) -> str:
    """Versions that the workers report, ``name version`` once each."""
    found = {
        f"{name} {version}" for job in jobs for run in job.runs for name, version in run["versions"].items()
    }
    return ", ".join(sorted(found))


def record(
    name: str, title: str, text: str, jobs: Sequence[Job], options: argparse.Namespace, script: str = ""
) -> None:
    """Print a result as Markdown and, unless ``--dry``, write ``results/<name>.md`` and ``.json``.

    ``script`` is the script's name where it is not the result's.
    """
    script = script or name
    runs = " or ".join(str(count) for count in sorted({len(job.runs) for job in jobs}))
    here = commit()
    commits = ", ".join(sorted({run.get("commit", here) for job in jobs for run in job.runs}))
    machine, date = cpu_description(), datetime.datetime.now(datetime.UTC).date().isoformat()
    about = (
        f"`benchmarks/{script}.py`, {date}, commit {commits}; "
        f"{machine['cpu']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, {options.threads} thread(s) each; "
        f"median (smallest to largest) of {runs} interleaved runs; {versions(jobs)}."
    )
    page = f"## {title}\n\n{text.strip()}\n\n{about}\n"
    print(page)
    if options.dry:
        return
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "script": f"benchmarks/{script}.py",
        "date": date,
        "commit": commits,
        "machine": machine,
        "threads": options.threads,
        "jobs": [{"name": job.name, "settings": public(job.settings), "runs": job.runs} for job in jobs],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print("recorded; python docs/generate.py takes it into docs/benchmarks.md", file=sys.stderr)


def public(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the paths of this machine."""
    return {key: value for key, value in settings.items() if key not in {"data", "work", "zoo", "file"}}
