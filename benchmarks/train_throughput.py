"""Training rows per CPU second at batch 4096: CTR models in graphrec, FuxiCTR and DeepCTR-Torch.

    python benchmarks/train_throughput.py --data data --fuxictr-python P --fuxictr-zoo Z --peer-python Q

Same columns, embedding width 16, Adam, gradient clipping where the system has it. Each contender runs in its
own process, alternating with the others: warm-up steps, then timed ones, out of its own loader and engine.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import common

AUTOINT = {"num_layers": 3, "num_heads": 2, "head_dim": 32, "embedding_dim": 16}
NARROW = {**AUTOINT, "head_dim": 8}
FCN = {"deep_layers": 3, "shallow_layers": 4, "embedding_dim": 16}
DCNV2 = {"num_layers": 3, "hidden_units": [400, 400], "embedding_dim": 16}
BF16 = {"precision": "bf16-mixed"}
MODES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": BF16,
    "fp32, compiled": {"compile": True},
    "bf16, compiled": {**BF16, "compile": True},
}
COLUMNS: dict[str, dict[str, Any]] = {
    "": {},
    " with curves of numbers": {"numbers": "piecewise"},
    " on the categorical columns": {"ignore": [f"I{i}" for i in range(1, 14)]},
}
# AutoInt's layers are one autograd step each, which a compiler cannot look into.
EAGER = ("fp32", "bf16")


def make_jobs(options: common.argparse.Namespace, work: str) -> dict[str, list[common.Job]]:
    """Contenders by question; the peer that the ratios refer to comes last."""
    base = {
        "task": "train",
        "data": str(options.data.resolve()),
        "work": work,
        "warmup": options.warmup,
        "steps": options.steps,
        "batch_size": options.batch_size,
    }

    def ours(
        model: str, size: dict[str, Any], columns: str = "", modes: tuple[str, ...] = EAGER
    ) -> list[common.Job]:
        return [
            common.Job(
                f"graphrec {model}{columns}, {mode}",
                "graphrec",
                sys.executable,
                {**base, **COLUMNS[columns], "model": model, "options": size, "training": training},
            )
            for mode, training in MODES.items()
            if mode in modes and mode in options.modes
        ]

    def fuxictr(model: str) -> common.Job:
        settings = {**base, "model": model, "zoo": options.fuxictr_zoo}
        return common.Job(f"FuxiCTR {model}", "fuxictr", options.fuxictr_python, settings)

    def deepctr(model: str) -> common.Job:
        return common.Job(f"DeepCTR-Torch {model}", "deepctr", options.peer_python, {**base, "model": model})

    return {
        "AutoInt, attention width 64": [*ours("autoint", AUTOINT), fuxictr("AutoInt")],
        "AutoInt, attention width 16 (DeepCTR-Torch's default)": [
            *ours("autoint", NARROW),
            *ours("autoint", NARROW, " on the categorical columns"),
            deepctr("AutoInt"),
        ],
        "DCN-V2, 3 cross layers and 400-400": [
            *ours("dcnv2", DCNV2, modes=tuple(MODES)),
            *ours("dcnv2", DCNV2, " with curves of numbers"),
            *ours("dcnv2", DCNV2, " on the categorical columns", modes=tuple(MODES)),
            deepctr("DCN"),
            fuxictr("DCNv2"),
        ],
        "FCN, 3 exponential and 4 linear layers, its official code in FuxiCTR": [
            *ours("fcn", FCN),
            *ours("fcn", FCN, " with curves of numbers"),
            fuxictr("DCNv3"),
        ],
        "FwFM, a linear vector per field": [
            *ours("fwfm", {}),
            *ours("fwfm", {}, " with curves of numbers"),
            fuxictr("FwFM"),
        ],
    }


def section(title: str, jobs: list[common.Job]) -> str:
    """One question's table."""
    key, whole = "rows_per_cpu_second", "rows_per_tree_cpu_second"
    rows = [
        [
            job.name,
            common.spread(job, key, 0),
            common.spread(job, whole, 0),
            common.ratio(job, jobs[-1], key),
            common.spread(job, "warmup_cpu"),
        ]
        for job in jobs
    ]
    header = [
        *("system", "rows per CPU second", "with its other processes"),
        *(f"times {jobs[-1].name}", "CPU seconds of the warm-up"),
    ]
    return f"### {title}\n\n{common.markdown_table(header, rows)}"


def main() -> None:
    """Run and record."""
    parser = common.parser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--name", default="train_throughput", help="of the result file")
    parser.add_argument("--title", default="Training throughput on a CPU")
    parser.add_argument("--update", action="store_true", help="leave the rest of the recorded result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        groups = make_jobs(options, work)
        chosen = common.available([job for jobs in groups.values() for job in jobs], options.only)
        common.interleave(chosen, options.repeats, options.threads)
    if options.update:
        groups = {title: common.with_recorded(jobs, options.name) for title, jobs in groups.items()}
    groups = {title: [job for job in jobs if job.runs] for title, jobs in groups.items()}
    groups = {title: jobs for title, jobs in groups.items() if jobs}
    jobs = [job for group in groups.values() for job in group]
    notes = (
        f"{options.steps} steps of {options.batch_size} rows after {options.warmup} of warm-up (compilation"
        " falls into the warm-up). 13 numeric and 26 categorical columns; DeepCTR-Torch lets only the"
        " categorical ones into its interactions. FuxiCTR loads its batches in Ray processes, which the"
        " second column counts. Numbers scale one vector each, as in the peers; curves are graphrec's"
        " default."
    )
    text = "\n\n".join([*(section(*group) for group in groups.items()), notes])
    common.record(options.name, options.title, text, jobs, options, script="train_throughput")


if __name__ == "__main__":
    main()
