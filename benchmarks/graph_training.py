"""Graphs per CPU second in training a GIN, ours and PyG's, on many small graphs.

python benchmarks/graph_training.py --repeats 5
"""

from __future__ import annotations

import sys

import common

CASE = {"graphs": 1000, "nodes": 30, "degree": 4.4, "batch_size": 32, "hidden": 64, "layers": 5, "epochs": 10}
SYSTEMS = {
    "graphrec, as `GraphClassifier.fit` trains": {"system": "graphrec", "fused": True, "kept": True},
    "graphrec, malloc left alone": {"system": "graphrec", "fused": True, "kept": False},
    "PyG: `DataLoader`, `GINConv`, torch's default Adam": {"system": "pyg", "fused": False, "kept": False},
    "PyG, fused Adam": {"system": "pyg", "fused": True, "kept": False},
    "PyG, fused Adam, freed memory kept": {"system": "pyg", "fused": True, "kept": True},
}


NOTE = """

1,000 graphs of 20 to 40 nodes and about 4 directed edges for each, one-hot features; GIN-0 of 5 layers, 64
wide, two linear layers with a batch norm between them in each, and the sums over the nodes of all layers side
by side, as in its paper. All compute the same function from the same weights: logits and gradients are
compared first.
Loading counts, as does everything else of ten epochs, after one to warm up. Most of the time goes to
linear layers, batch norms and ReLUs, which are torch's in all. graphrec's trainer keeps the memory that a
step frees (`graphrec.training.freed_memory`); PyG's loop with the same setting is the last row.
"""


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=5).parse_args()
    jobs = [
        common.Job(
            f"{name}, batches of {size}", "graphs", sys.executable, {**CASE, **which, "batch_size": size}
        )
        for size in (32, 128)
        for name, which in SYSTEMS.items()
    ]
    jobs = common.available(jobs, options.only)
    common.interleave(jobs, options.repeats, options.threads)
    rows = []
    for job in jobs:
        plain = {**job.settings, **SYSTEMS["PyG: `DataLoader`, `GINConv`, torch's default Adam"]}
        base = next((one for one in jobs if one.settings == plain), job)
        speed = common.spread(job, "graphs_per_cpu_s", 0)
        rows.append([job.name, speed, common.ratio(job, base, "graphs_per_cpu_s")])
    text = common.markdown_table(["trained by", "graphs per CPU second", "times PyG's"], rows) + NOTE
    common.record("graph_training", "Training on small graphs", text, jobs, options)


if __name__ == "__main__":
    main()
