"""Peak memory of fitting by number of rows, and the time of a training step by size of the vocabulary.

python benchmarks/make_ctr.py 10000000 data/ctr_10m.parquet
python benchmarks/memory.py --data data
"""

from __future__ import annotations

import sys
import tempfile

import common

DRAWS = {
    "same": "the same 100,000 in use",
    "skewed": "drawn as 1 / rank",
    "uniform": "drawn uniformly",
}
VOCABULARIES = (10**5, 10**6, 10**7)


def make_jobs(options: common.argparse.Namespace, work: str) -> tuple[list[common.Job], list[common.Job]]:
    """Fits by file, and steps by vocabulary."""
    fits = [
        common.Job(
            name,
            "graphrec",
            sys.executable,
            {
                "task": "memory",
                "work": work,
                "model": options.model,
                "file": str(options.data.resolve() / f"{name}.parquet"),
            },
        )
        for name in options.files
    ]
    timed = {"task": "vocabulary", "work": work, "model": options.model, "warmup": 10, "steps": 40}
    steps = [
        common.Job(
            f"{ids:,} ids, {how}",
            "graphrec",
            sys.executable,
            {**timed, "ids": ids, "draw": draw},
        )
        for draw, how in DRAWS.items()
        for ids in VOCABULARIES
    ]
    return fits, steps


def text(fits: list[common.Job], steps: list[common.Job]) -> str:
    """Both results as Markdown."""
    keys = ("peak_mb", "peak_anonymous_mb", "imports_mb", "cpu")
    rows = [
        [job.name, *(common.spread(job, key, 0) for key in keys), common.ratio(job, fits[0], "peak_mb")]
        for job in fits
    ]
    header = [
        "file",
        "peak resident MB",
        "of it anonymous",
        "after imports",
        "CPU seconds",
        "times the first",
    ]
    first = {job.settings["draw"]: job for job in reversed(steps)}
    times = [
        [
            job.name,
            common.spread(job, "ms_per_step"),
            common.ratio(job, first[job.settings["draw"]], "ms_per_step"),
        ]
        for job in steps
    ]
    return (
        f"### Peak memory of fitting one epoch\n\n{common.markdown_table(header, rows)}\n\n"
        "### Time of a training step of 4096 rows and 10 fields\n\n"
        + common.markdown_table(["vocabulary", "CPU milliseconds", "times the smallest"], times)
        + "\n\nWith the same ids in use every step touches as many rows, whatever the vocabulary; drawn from"
        " all ids, a larger vocabulary means more distinct rows in a step, and fewer of them in the caches."
        " Resident memory counts pages of memory-mapped files, which the system drops when it needs"
        " room; anonymous memory does not."
    )


def main() -> None:
    """Run and record."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--model", default="fm")
    parser.add_argument("--files", nargs="*", default=["ctr_1m", "ctr_10m"], help="names without .parquet")
    parser.add_argument("--update", action="store_true", help="leave the rest of the recorded result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        fits, steps = make_jobs(options, work)
        common.interleave(common.available(steps, options.only), max(options.repeats, 5), options.threads)
        common.interleave(common.available(fits, options.only), options.repeats, options.threads)
    if options.update:
        fits, steps = (common.with_recorded(jobs, "memory") for jobs in (fits, steps))
    fits, steps = ([job for job in jobs if job.runs] for jobs in (fits, steps))
    title = "Memory by rows, time by vocabulary"
    common.record("memory", title, text(fits, steps), [*fits, *steps], options)


if __name__ == "__main__":
    main()
