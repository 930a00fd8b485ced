"""CPU seconds to turn 1,000,000 rows of parquet into what a model trains on: graphrec and its peers.

python benchmarks/encode.py --data data --fuxictr-python P --peer-python Q
"""

from __future__ import annotations

import sys
import tempfile

import common


def make_jobs(options: common.argparse.Namespace, work: str) -> list[common.Job]:
    """All contenders."""
    base = {"task": "encode", "data": str(options.data.resolve()), "work": work}
    fuxictr = {**base, "zoo": options.fuxictr_zoo}
    return [
        common.Job("graphrec", "graphrec", sys.executable, base),
        common.Job("FuxiCTR 2.3.10", "fuxictr", options.fuxictr_python, fuxictr),
        common.Job("DeepCTR-Torch 0.3.0 recipe (scikit-learn)", "deepctr", options.peer_python, base),
        common.Job("LightGBM: read and cast", "gbdt", options.peer_python, base),
    ]


def text(jobs: list[common.Job]) -> str:
    """The result as Markdown."""
    ours = jobs[0]
    rows = [
        [job.name, common.spread(job, "cpu"), common.spread(job, "wall"), common.ratio(job, ours, "cpu")]
        for job in jobs
    ]
    header = ["system", "CPU seconds", "wall seconds", "times graphrec's CPU"]
    return (
        common.markdown_table(header, rows)
        + "\n\nReading included; vocabularies from the training rows where the system can (graphrec,"
        " FuxiCTR). graphrec and FuxiCTR also write what they encode to disk. The CPU time is that of the"
        " process and its children; some of FuxiCTR's Ray workers escape it."
    )


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as work:
        jobs = common.available(make_jobs(options, work), options.only)
        common.interleave(jobs, options.repeats, options.threads)
    common.record("encode", "Encoding 1,000,000 rows", text(jobs), jobs, options)


if __name__ == "__main__":
    main()
