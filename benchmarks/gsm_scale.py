"""GSM++ on graphs of up to 100,000 nodes: CPU time of clusters, plan, step and prediction; peak memory.

python benchmarks/gsm_scale.py --repeats 3
"""

from __future__ import annotations

import sys

import common

OPTIONS = {"layers": 2, "states": 8, "expand": 1, "window": 16}
CASES = [(10_000, 32), (30_000, 32), (100_000, 32), (100_000, 64)]

NOTE = """

Random graphs with six edges to a node on average and 16 features; `node_gsm++` with two GatedGCN layers,
Mamba of 8 states in both directions (twice), and attention to 16 positions on either side with hierarchical
positions. "Clusters" is the affinity tree alone; "plan" is all that is derived from a graph once, the tree
included; a step is forward, backward and Adam on the whole graph. The peak is the process's largest resident
size until the steps are over, PyTorch's own half gigabyte included.
"""


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=3).parse_args()
    jobs = [
        common.Job(
            f"{nodes:,} nodes, {hidden} wide",
            "gsm_scale",
            sys.executable,
            {"nodes": nodes, "degree": 6, "steps": 1, "options": {**OPTIONS, "hidden": hidden}},
        )
        for nodes, hidden in CASES
    ]
    jobs = common.available(jobs, options.only)
    common.interleave(jobs, options.repeats, options.threads)
    keys = ("clusters_s", "plan_s", "step_s", "predict_s", "peak_gb")
    rows = [[job.name, *(common.spread(job, key, 2) for key in keys)] for job in jobs]
    header = ["graph", "clusters, CPU s", "plan, CPU s", "step, CPU s", "prediction, CPU s", "peak, GB"]
    text = common.markdown_table(header, rows) + NOTE
    common.record("gsm_scale", "GSM++ on large graphs", text, jobs, options)


if __name__ == "__main__":
    main()
