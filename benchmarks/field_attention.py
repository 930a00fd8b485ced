"""Attention among fields on a CPU: graphrec.kernels, torch's fused attention, and three plain operations.

    python benchmarks/field_attention.py

Forward and backward of `field_attention` and of `interacting_layer` (AutoInt's, 64 wide, with residual and
ReLU), the contenders in turn in one process; outputs and gradients are compared with float64 first.
"""

from __future__ import annotations

import sys

import common

NAMES = {
    "graphrec": "graphrec",
    "sdpa": "torch's fused attention",
    "bmm": "product, softmax, product",
}
OPERATORS = {"field_attention": "`field_attention`", "interacting_layer": "`interacting_layer`"}
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


def make_jobs(options: common.argparse.Namespace) -> list[common.Job]:
    """One job per operator and precision; its runs hold the times of all contenders."""
    shape = {name: getattr(options, name) for name in ("batch", "fields", "heads", "dim", "rounds")}
    return [
        common.Job(
            f"{operator}, {PRECISIONS[dtype]}",
            "fields",
            sys.executable,
            {"operator": operator, "dtype": dtype, "names": list(NAMES), **shape},
        )
        for operator in OPERATORS
        for dtype in PRECISIONS
    ]


def row(job: common.Job) -> list[str]:
    """A job's line: the times, and those of the others over ours."""
    ours = common.median(job, "graphrec")
    ratios = [f"{(common.median(job, name) or 0) / ours:.2f}" if ours else "–" for name in ("sdpa", "bmm")]
    return [job.name, *(common.spread(job, name, 0) for name in NAMES), *ratios]


def main() -> None:
    """Run and record."""
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender in a process")
    for name, default in (("batch", 4096), ("fields", 39), ("heads", 2), ("dim", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    jobs = common.available(make_jobs(options), options.only)
    common.interleave(jobs, options.repeats, options.threads)
    header = ["operator", *NAMES.values(), "times the fused", "times the plain"]
    text = (
        f"Batch {options.batch}, {options.fields} fields, {options.heads} heads of {options.dim}; CPU"
        " milliseconds, forward and backward. Each run is a process in which the contenders alternate.\n\n"
        + common.markdown_table(header, map(row, jobs))
    )
    common.record("field_attention", "Attention among fields on a CPU", text, jobs, options)


if __name__ == "__main__":
    main()
