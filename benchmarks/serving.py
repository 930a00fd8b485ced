"""CPU time from a saved model to scores: a first row in a new process, then 1, 100 and 10,000 rows a call.

    python benchmarks/serving.py --data data --peer-python Q

Each system fits a model on the first 100,000 rows for an epoch (trees: 200 of them) and saves it in its own
way. Rows come as a pandas frame with strings and missing values, as they would from a request; what a system
needs to make numbers of them counts. FuxiCTR scores files only.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace

import common

OURS = ("fwfm", "dnn", "fcn", "autoint")
SIZES = (1, 100, 10_000)


def make_jobs(options: common.argparse.Namespace, work: str) -> list[common.Job]:
    """All contenders."""
    base = {"data": str(options.data.resolve()), "work": work, "rows": 100_000, "sizes": SIZES, "epochs": 1}
    peers = (("LightGBM", "gbdt"), ("CatBoost", "gbdt"), ("DCN", "deepctr"), ("AutoInt", "deepctr"))
    return [
        *(common.Job(f"graphrec {m}", "graphrec", sys.executable, {**base, "model": m}) for m in OURS),
        *(
            common.Job(
                f"DeepCTR-Torch {m}" if worker == "deepctr" else m,
                worker,
                options.peer_python,
                {**base, "model": m},
            )
            for m, worker in peers
        ),
    ]


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    keys = ("first", *(f"ms_{size}" for size in SIZES))
    rows = [[job.name, *(common.spread(job, key, 1) for key in keys)] for job in jobs]
    header = [
        "system",
        "first row, CPU seconds",
        *(f"{size:,} row{'s' * (size > 1)}, CPU ms" for size in SIZES),
    ]
    return (
        f"{common.markdown_table(header, rows)}\n\nThe first row includes Python, imports and loading; later"
        " figures are medians of calls in that process. 13 numeric and 26 categorical columns, 100,000 rows"
        " to fit on; models by default, DeepCTR-Torch's as in `quality.py`: its AutoInt attends among the 26"
        " categorical fields with a width of 16, ours among all 39 with 64."
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=3).parse_args()
    with tempfile.TemporaryDirectory() as work:
        jobs = common.available(make_jobs(options, work), options.only)
        for job in jobs:
            common.work(replace(job, settings={**job.settings, "task": "save"}), options.threads)
            job.settings["task"] = "serve"
        common.interleave(jobs, options.repeats, options.threads)
    common.record("serving", "From a saved model to scores", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
