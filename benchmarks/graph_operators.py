"""CPU time of the graph operators in training, and of the same from torch's gather and scatter.

python benchmarks/graph_operators.py --repeats 7
"""

from __future__ import annotations

import sys
from typing import Any

import common

GRAPH = {"nodes": 50_000, "edges": 800_000, "dtype": "float32"}
SMALL = {"nodes": 2_000, "edges": 20_000}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("`spmm` with edge weights, 64 wide", {"case": "sums", "dim": 64}),
    ("`spmm` without weights, 64 wide", {"case": "plain sums", "dim": 64}),
    ("`spmm` of maxima, 64 wide", {"case": "maxima", "dim": 64}),
    ("`sddmm`, 64 wide", {"case": "products", "dim": 64}),
    ("`edge_softmax`, 4 heads", {"case": "softmax", "heads": 4}),
    ("`edge_attention`, 4 heads of 16", {"case": "attention", "heads": 4, "dim": 16}),
    ("`spmm` of maxima, 64 wide, small", {"case": "maxima", "dim": 64, **SMALL}),
    ("`spmm` of maxima, 4 wide, small", {"case": "maxima", "dim": 4, **SMALL}),
    ("`sddmm`, 4 wide, small", {"case": "products", "dim": 4, **SMALL}),
    ("`edge_softmax`, 64 heads, small", {"case": "softmax", "heads": 64, **SMALL}),
]


def make_cases(cases: list[tuple[str, dict[str, Any]]], repeats: int, **common_: Any) -> list[common.Job]:
    """A job per question; its worker runs all contenders in turn."""
    return [
        common.Job(name, "operators", sys.executable, {"repeats": repeats, **common_, **settings})
        for name, settings in cases
    ]


def run(case: common.Job, threads: int) -> list[common.Job]:
    """A job per contender, with the runs that one process made in turn."""
    found = common.work(case, threads)
    print(f"{case.name}: {found['runs']}", file=sys.stderr, flush=True)
    rest = {key: found[key] for key in ("versions", "load")}
    return [
        common.Job(
            f"{name}: {case.name}",
            "operators",
            case.python,
            case.settings,
            [{"ms": ms, **rest} for ms in times],
        )
        for name, times in found["runs"].items()
    ]


def table(cases: list[list[common.Job]], header: str) -> str:
    """The result as a Markdown table."""
    rows = []
    for ours, *others in cases:
        for job in (ours, *others):
            name, _, case = job.name.partition(": ")
            rows.append([case, name, common.spread(job, "ms"), common.ratio(job, ours, "ms")])
    return common.markdown_table([header, "computed by", "CPU milliseconds", "times graphrec's"], rows)


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=7).parse_args()
    jobs = common.available(make_cases(CASES, options.repeats, **GRAPH), options.only)
    cases = [run(job, options.threads) for job in jobs]
    text = (
        table(cases, "forward and backward")
        + "\n\n50,000 nodes, 800,000 edges drawn uniformly, small 2,000 and 20,000, float32. Outputs and"
        " the gradients of all inputs, which are compared with float64 first. The graph is sorted by the"
        " receiving node for all, and its transpose made before the clock starts, as it serves all layers"
        " and steps."
    )
    every = [job for contenders in cases for job in contenders]
    common.record("graph_operators", "Graph operators on a CPU", text, every, options)


if __name__ == "__main__":
    main()
