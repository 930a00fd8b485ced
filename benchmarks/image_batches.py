"""CPU time of making batches of small pictures: ours on an array, and a picture at a time as is usual.

Pictures in files are decoded into such an array before the first epoch, as `ImageClassifier` does it.

python benchmarks/image_batches.py
"""

from __future__ import annotations

import sys

import common

CASES = (
    "no augmentation",
    "pad, crop and flip",
    "pad, crop, flip and jitter",
    "pad, crop, flip and RandAugment",
    "JPEG files, pad, crop and flip, first epoch",
    "JPEG files, pad, crop and flip, each further epoch",
)
COUNT, SIDE, BATCH = 1280, 32, 128


def make_cases(repeats: int) -> list[common.Job]:
    """A job per augmentation; its worker runs both contenders in turn."""
    fixed = {"count": COUNT, "side": SIDE, "batch": BATCH, "repeats": repeats}
    return [
        common.Job(case, "image_batches", sys.executable, {"augmentation": case, **fixed}) for case in CASES
    ]


def run(case: common.Job, threads: int) -> list[common.Job]:
    """Two jobs, ours and the peer's, with the runs that one process made in turn."""
    found = common.work(case, threads)
    print(f"{case.name}: {found['runs']}", file=sys.stderr, flush=True)
    rest = {key: found[key] for key in ("versions", "load")}
    return [
        common.Job(
            f"{name}: {case.name}",
            case.worker,
            case.python,
            case.settings,
            [{"ms": ms, **rest} for ms in times],
        )
        for name, times in found["runs"].items()
    ]


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    rows = [
        [
            ours.name.partition(": ")[2],
            common.spread(ours, "ms"),
            common.spread(theirs, "ms"),
            common.ratio(ours, theirs, "ms"),
        ]
        for ours, theirs in zip(jobs[::2], jobs[1::2], strict=True)
    ]
    header = ["augmentation", "graphrec, CPU ms", "torchvision and timm, CPU ms", "ours over the peer's"]
    return (
        common.markdown_table(header, rows)
        + f"\n\nFor a batch of {BATCH} pictures of {SIDE} pixels that lie in one array, normalised at"
        " the end; no worker processes. The peer is `torch.utils.data.DataLoader` over a data set that"
        " makes a PIL image of each picture, as torchvision's CIFAR10 does, with torchvision's transforms"
        " and timm's RandAugment. Both draw for each picture. Files are decoded once by"
        " `graphrec.pipelines.images.decode_images`, which the first epoch includes, and in every epoch by"
        " torchvision's ImageFolder, here with the pictures as JPEG of quality 90."
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=7).parse_args()
    cases = common.available(make_cases(options.repeats), options.only)
    jobs = [job for case in cases for job in run(case, options.threads)]
    common.record("image_batches", "Batches of small pictures", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
