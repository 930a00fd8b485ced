"""Connectivity and colour counting on generated graphs: GSM++, what it is made of, and message passing.

python benchmarks/graph_sequences.py connectivity --seeds 3 --keep runs.jsonl

The paper's tables (arXiv:2411.15671) do not say how their graphs were made; these are our own. Runs that are
in the file of ``--keep`` are not repeated.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import torch

from graphrec.graph import GraphClassifier
from graphrec.pipelines.graphs import GraphSet, colour_counting_graphs, connectivity_graphs
from graphrec.pipelines.index_splits import IndexSplit

TASKS: dict[str, Callable[..., GraphSet]] = {
    "connectivity": connectivity_graphs,
    "colours": colour_counting_graphs,
}
DATA: dict[str, dict[str, Any]] = {
    "connectivity": {"nodes": (20, 36)},
    "colours": {"nodes": (10, 30), "most": 5},
}
PARTS = {"train": 2000, "valid": 200, "test": 1000}
TRAINING = {"connectivity": (4, 3e-3), "colours": (4, 5e-3)}
"""Epochs, learning rate."""
SMALL = {"hidden": 32, "readout": "mean"}
SEQUENCES = {**SMALL, "layers": 2, "states": 8, "expand": 1}
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "GCN": ("gcn", {**SMALL, "layers": 2}),
    "GatedGCN": ("gatedgcn", {**SMALL, "layers": 2, "residual": True}),
    "GSM: nodes, Transformer": ("gsm", SEQUENCES),
    "GSM: nodes, hybrid": ("gsm", {**SEQUENCES, "encoder": "hybrid"}),
    "GSM++ without positions": ("gsm++", {**SEQUENCES, "positions": False}),
    "GSM++ (BFS)": ("gsm++bfs", SEQUENCES),
    "GSM++ (DFS)": ("gsm++", SEQUENCES),
}
PUBLISHED = {
    "connectivity": "Published: GCN 63.3, Transformer on nodes 85.7, hybrid on DFS clusters 90.7.",
    "colours": "Published: GCN 70.8, Transformer on nodes 73.1, hybrid on DFS clusters 85.8.",
}


def run(task: str, system: str, seed: int) -> dict[str, Any]:
    """Train once and test."""
    model, arguments = SYSTEMS[system]
    graphs = TASKS[task](sum(PARTS.values()), **DATA[task], seed=seed)
    epochs, rate = TRAINING[task]
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))
    split = IndexSplit.of(*order.split(list(PARTS.values())), total=len(graphs), name="random")
    start = time.process_time()
    found = GraphClassifier(
        model,
        model_options=arguments,
        epochs=epochs,
        batch_size=32,
        learning_rate=rate,
        patience=None,
        train_options={"scheduler": "cosine"},
        random_state=seed,
    ).fit(graphs, split=split)
    return {
        "accuracy": found.metrics_["test"]["accuracy"],
        "cpu_s": round(time.process_time() - start, 1),
        "parameters": sum(one.numel() for one in found.module_.parameters()),
    }


def kept(path: Path | None) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Runs of an earlier call."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["task"], row["system"], row["seed"]): row for row in rows}


def main() -> None:
    """Run and record."""
    options = common.parser(__doc__, repeats=3)
    options.add_argument("task", choices=sorted(TASKS))
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="file that runs are added to, and taken from")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    done = kept(given.keep)
    names = [name for name in SYSTEMS if not given.only or any(part in name for part in given.only)]
    jobs = [
        common.Job(name, "graphs", sys.executable, {"model": SYSTEMS[name][0], **SYSTEMS[name][1]})
        for name in names
    ]
    for seed in range(given.first_seed, given.seeds):
        for job in jobs:
            row = done.get((given.task, job.name, seed))
            if row is None:
                figures = run(given.task, job.name, seed)
                row = {"task": given.task, "system": job.name, "seed": seed, **figures}
                row["load"] = round(os.getloadavg()[0], 1)
                row["versions"] = {name: version(name) for name in ("torch", "graphrec")}
                if given.keep:
                    with given.keep.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
                print(json.dumps(row), file=sys.stderr, flush=True)
            job.runs.append(row)
    rows = [
        [job.name, f"{job.runs[0]['parameters']:,}", accuracy(job), common.spread(job, "cpu_s", 0)]
        for job in jobs
    ]
    (low, high), epochs = DATA[given.task]["nodes"], TRAINING[given.task][0]
    seeds = given.seeds
    times = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    header = ["model", "parameters", "test accuracy, %", "CPU seconds to train"]
    text = (
        common.markdown_table(header, rows) + f"\n\nGraphs of {low} to {high} nodes by"
        f" `graphrec.pipelines.graphs.{TASKS[given.task].__name__}`, {PARTS['train']:,} to train on, for"
        f" {epochs} epochs, and {PARTS['test']:,} others to test on, new ones for every seed; two layers of"
        f" message passing in all, 32 wide, mean readout; {times}; one run's standard error is about"
        f" {100 * (0.2 / PARTS['test']) ** 0.5:.1f} points. {PUBLISHED[given.task]}"
        " The paper's graphs and settings are not published: only the order compares."
    )
    title = {"connectivity": "Connectivity of marked nodes", "colours": "Counting a colour"}[given.task]
    common.record(
        f"graph_sequences_{given.task}", f"{title}: GSM++ and its parts", text, jobs, given, "graph_sequences"
    )


def accuracy(job: common.Job) -> str:
    """Mean and standard deviation over seeds."""
    values = [100 * run["accuracy"] for run in job.runs]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
