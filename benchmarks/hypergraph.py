"""CPU time of HGNN, of PyG's and dhg's, and of LightHGNN's student, by the number of incidences.

python benchmarks/hypergraph.py --repeats 5
"""

from __future__ import annotations

import sys
from typing import Any

import common
from graph_operators import run

GRAPH = {"vertices": 55_000, "edges": 55_000, "features": 300, "hidden": 32, "classes": 10}
SIZES = (5, 10, 20, 40)
STUDENT, OURS = "LightHGNN's student", "graphrec HGNN"


def cases(repeats: int) -> list[common.Job]:
    """All questions; dhg's HGNN is asked about whole hypergraphs alone."""
    wanted: list[tuple[str, int]] = [
        *(("inference", size) for size in SIZES),
        ("training", 40),
        *(("one vertex", size) for size in SIZES),
    ]
    return [
        common.Job(f"{case}, {size * 55:,}k", "hypergraph", sys.executable, settings(case, size, repeats))
        for case, size in wanted
    ]


def settings(case: str, size: int, repeats: int) -> dict[str, Any]:
    """What a worker takes."""
    return {
        **GRAPH,
        "case": case,
        "size": size,
        "repeats": repeats,
        "without_dhg": case == "one vertex" or size == 20,
    }


def table(answers: list[list[common.Job]]) -> str:
    """The result as a Markdown table."""
    rows = []
    for jobs in answers:
        student = next(job for job in jobs if job.name.startswith(STUDENT))
        ours = next(job for job in jobs if job.name.startswith(OURS))
        for job in jobs:
            name, _, case = job.name.partition(": ")
            ratios = [common.ratio(job, base, "ms") for base in (student, ours)]
            rows.append([case, name, common.spread(job, "ms", digits=3), *ratios])
    header = [
        "question, incidences",
        "computed by",
        "CPU milliseconds",
        "times the student's",
        "times HGNN's",
    ]
    return common.markdown_table(header, rows)


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__).parse_args()
    answers = [run(job, options.threads) for job in common.available(cases(options.repeats), options.only)]
    text = (
        table(answers)
        + "\n\n55,000 vertices, 55,000 hyperedges of uniformly drawn vertices, 300 features, networks of 32"
        " hidden channels and the published student of 128, 10 classes, float32. All networks have the same"
        " weights, and their outputs are compared first; PyG's HypergraphConv does HGNN+'s sums. Structures"
        " are made and used once before the clock starts: that is where dhg multiplies HGNN's matrices out."
        " One vertex is asked of the student from its features, and of HGNN by gathering two hops around it"
        " or by the whole. How many times faster than its teacher a student is depends on whose teacher it is"
        " and on how many vertices are asked for; a student of 128 channels multiplies more than HGNN does."
    )
    every = [job for jobs in answers for job in jobs]
    common.record("hypergraph", "Hypergraph networks and LightHGNN on a CPU", text, every, options)


if __name__ == "__main__":
    main()
