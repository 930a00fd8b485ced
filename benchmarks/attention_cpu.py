"""CPU time of window and neighborhood attention in training, ours, timm's and with a dense mask.

pip install natten==0.21.7    # joins where it is installed; it has no backward on a CPU
python benchmarks/attention_cpu.py --repeats 7
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import common

OURS, MASKED, NATTEN = "graphrec", "fused attention with a mask", "NATTEN"
WINDOWED, WINDOWED_FUSED = "timm's window attention", "timm's, with fused attention"
GRIDS, SMALL, DTYPES = (28, 56), 14, ("float32", "bfloat16")


def make_cases(repeats: int, natten: bool) -> list[common.Job]:
    """A job per question; its worker runs all contenders in turn."""
    base = {"task": "time", "heads": 4, "dim": 32, "repeats": repeats, "least": 0.05, "exact": MASKED}
    plain = {**base, "backward": True, "bias": False, "shift": 0, "contenders": [OURS, MASKED]}
    windows = {**plain, "pattern": "windows", "kernel": 7}
    swin = {**windows, "bias": True, "exact": WINDOWED, "contenders": [OURS, WINDOWED, WINDOWED_FUSED]}
    forward = {**plain, "backward": False, "contenders": [OURS, MASKED, *([NATTEN] if natten else [])]}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("windows 7", windows),
        ("windows 7 with relative bias", swin),
        (
            "windows 7 shifted by 3 with relative bias",
            {**swin, "pattern": "windows", "kernel": 7, "shift": 3},
        ),
        ("neighborhood 7", {**plain, "pattern": "neighborhood", "kernel": 7}),
        ("neighborhood 13", {**plain, "pattern": "neighborhood", "kernel": 13}),
        ("neighborhood 7, forward only", {**forward, "pattern": "neighborhood", "kernel": 7}),
    ]
    every = [(name, settings, grid) for name, settings in kinds for grid in GRIDS]
    every += [(*kinds[0], SMALL), (*kinds[-1], SMALL)]  # where a mask over all pairs begins to be quicker
    return [
        common.Job(
            f"{name} at {grid}x{grid}, {dtype}",
            "attention",
            sys.executable,
            {**settings, "grid": grid, "dtype": dtype},
        )
        for name, settings, grid in every
        for dtype in DTYPES
    ]


def run(case: common.Job, threads: int) -> list[common.Job]:
    """A job per contender, with the runs that one process made in turn."""
    found = common.work(case, threads)
    print(f"{case.name}: {found['runs']}", file=sys.stderr, flush=True)
    rest = {key: found[key] for key in ("versions", "load")}
    made = []
    for name, times in found["runs"].items():
        runs = [{"ms": ms, **rest} for ms in times]
        made.append(common.Job(f"{name}: {case.name}", "attention", case.python, case.settings, runs))
    return made


def text(cases: list[list[common.Job]]) -> str:
    """The result as Markdown."""
    rows = [
        [
            *job.name.split(": "),
            common.spread(job, "ms"),
            common.ratio(job, contenders[0], "ms"),
        ]
        for contenders in cases
        for job in contenders
    ]
    rows = [[case, name, *rest] for name, case, *rest in rows]
    header = ["forward and backward", "computed by", "CPU milliseconds", "times graphrec's"]
    natten = any(job.name.startswith(NATTEN) for contenders in cases for job in contenders)
    return (
        common.markdown_table(header, rows)
        + "\n\nBatch 1, 4 heads of 32, one image of that many positions. Everything starts from the projected"
        " queries, keys and values as a block leaves them, (1, L, 384), and ends in (1, L, 128); outputs and"
        " gradients are compared with float64 first. Masks and plans are made before the clock starts."
        " timm's is the arithmetic of its Swin block between the two projections."
        + (
            " NATTEN has no backward on a CPU, and takes FlexAttention there."
            if natten
            else " NATTEN was not installed."
        )
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=7).parse_args()
    natten = find_spec("natten") is not None
    if not natten:
        print("left out: NATTEN (not installed)", file=sys.stderr)
    jobs = common.available(make_cases(options.repeats, natten), options.only)
    cases = [run(job, options.threads) for job in jobs]
    title = "Window and neighborhood attention on a CPU"
    every = [job for contenders in cases for job in contenders]
    common.record("attention_cpu", title, text(cases), every, options)


if __name__ == "__main__":
    main()
