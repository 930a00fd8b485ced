"""CPU time of backbones, ours and timm's: evaluation and training steps at 224 pixels.

python benchmarks/vision_cpu.py --only swin
"""

from __future__ import annotations

import sys

import common

MODELS = {
    "swin_tiny_patch4_window7_224": "timm",
    "convnext_tiny": "timm",
    "davit_tiny": "timm",
    "maxvit_tiny_tf_224": "timm",
    "volo_d1_224": "timm",
    "pvt_v2_b2": "timm",
    "convit_tiny": "timm",
    "ecanet50": "timm's ResNet-50 with its gate",
}
"""Our name -> what it is compared with; workers/run_vision.py makes it."""
DTYPES, SIZE = ("float32", "bfloat16"), 224


def make_cases(repeats: int, batches: list[int]) -> list[common.Job]:
    """A job per model and type; its worker runs both contenders in turn."""
    return [
        common.Job(
            f"{model}, {dtype}",
            "vision",
            sys.executable,
            {"model": model, "dtype": dtype, "batches": batches, "size": SIZE, "repeats": repeats},
        )
        for model in MODELS
        for dtype in DTYPES
    ]


def run(case: common.Job, threads: int) -> list[common.Job]:
    """Two jobs per question, ours and the peer's, with the runs that one process made in turn."""
    found = common.work(case, threads)
    print(f"{case.name}: {found['runs']}", file=sys.stderr, flush=True)
    rest = {key: found[key] for key in ("versions", "load")}
    return [
        common.Job(
            f"{name}: {case.name}, {what}",
            "vision",
            case.python,
            case.settings,
            [{"ms": ms, **rest} for ms in times],
        )
        for what, both in found["runs"].items()
        for name, times in both.items()
    ]


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    rows = [
        [
            ours.name.partition(": ")[2],
            common.spread(ours, "ms", 0),
            common.spread(theirs, "ms", 0),
            common.ratio(ours, theirs, "ms"),
        ]
        for ours, theirs in zip(jobs[::2], jobs[1::2], strict=True)
    ]
    header = ["model, type, question", "graphrec, CPU ms", "peer, CPU ms", "ours over the peer's"]
    return (
        common.markdown_table(header, rows)
        + "\n\n"
        + "; ".join(f"{model} beside {peer}" for model, peer in MODELS.items())
        + ". Both have the same weights, and their logits are compared first (but for ECA-Net's peer, which"
        f" has 5 taps in every gate); images of {SIZE} pixels; stochastic depth is off; bfloat16 by autocast."
        " A training step is forward, loss and backward, without an optimiser. The goal is 1.05 or"
        " less."
    )


def main() -> None:
    """Run and record."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    cases = common.available(make_cases(options.repeats, options.batches), options.only)
    jobs = [job for case in cases for job in run(case, options.threads)]
    common.record("vision_cpu", "Backbones on a CPU", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
