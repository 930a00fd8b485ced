"""Peak memory of neighborhood attention in training by size of the image, each in a fresh process.

python benchmarks/attention_memory.py
"""

from __future__ import annotations

import sys

import common

OURS, MASKED = "graphrec", "fused attention with a mask"
GRIDS, KERNELS, MASKED_GRIDS = (32, 64, 128), (7, 13), (32, 64)


def make_jobs() -> list[common.Job]:
    """Ours for all sizes, the dense form where it fits."""
    base = {"task": "memory", "pattern": "neighborhood", "heads": 4, "dim": 32, "dtype": "float32"}
    base |= {"shift": 0, "bias": False}
    return [
        common.Job(
            f"{name}: kernel {kernel} at {grid}x{grid}",
            "attention",
            sys.executable,
            {**base, "grid": grid, "kernel": kernel, "contenders": [name]},
        )
        for name, grids in ((OURS, GRIDS), (MASKED, MASKED_GRIDS))
        for kernel in KERNELS
        for grid in grids
    ]


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    rows = []
    for job in jobs:
        name, what = job.name.split(": ")
        length = job.settings["grid"] ** 2
        pairs = length * job.settings["kernel"] ** 2
        share = f"{pairs:,} of {length**2:,}"
        rows.append([what, name, share, *(common.spread(job, key, 0) for key in ("added_mb", "peak_mb"))])
    header = ["neighborhood", "computed by", "visible pairs", "MB added by forward and backward", "peak MB"]
    return (
        common.markdown_table(header, rows)
        + "\n\nBatch 1, 4 heads of 32, float32, with the gradients of queries, keys and values; peak"
        " resident memory of the process, torch included. Making the plan of the pattern counts. At 128x128"
        " a dense mask alone would hold 268 MB, and the logits of one pass 4,295 MB."
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=3).parse_args()
    jobs = common.available(make_jobs(), options.only)
    common.interleave(jobs, options.repeats, options.threads)
    common.record("attention_memory", "Memory of neighborhood attention", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
