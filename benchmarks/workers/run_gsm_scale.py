"""One process: cluster a generated graph, then make training steps and a prediction with GSM++."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from meter import finish, settings, status_mb
from torch import Tensor

from graphrec.graph import Topology
from graphrec.graph.gsm.drawing import cluster_tree
from graphrec.registry import create_model

FEATURES = 16


def graph(nodes: int, degree: int) -> tuple[Tensor, Tensor]:
    """Features, and the edges of a random graph in both directions."""
    make = torch.Generator().manual_seed(0)
    ends = torch.randint(0, nodes, (2, nodes * degree // 2), generator=make)
    return torch.randn(nodes, FEATURES, generator=make), torch.cat([ends, ends.flip(0)], 1)


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the CPU seconds that it took."""
    start = time.process_time()
    found = what()
    return found, time.process_time() - start


def main() -> None:
    """Read the settings, print the result."""
    given = settings()
    torch.set_num_threads(given["threads"])
    x, edge_index = graph(given["nodes"], given["degree"])
    topology, ptr = Topology.of(edge_index, len(x)), torch.tensor([0, len(x)])
    tree, clusters = timed(lambda: cluster_tree(x, topology))
    labels = torch.randint(0, 4, (len(x),))
    model = create_model("node_gsm++", FEATURES, 4, **given["options"])
    optimiser = torch.optim.Adam(model.parameters())
    _, plan = timed(lambda: model.backbone.plan(x, topology, ptr))

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x, topology), labels).backward()
        optimiser.step()

    seconds = [timed(step)[1] for _ in range(given["steps"])]
    peak = status_mb("VmHWM") / 1024
    model.eval()
    with torch.inference_mode():
        _, predict = timed(lambda: model(x, topology))
    finish(
        ["torch", "graphrec", "numpy", "scipy"],
        levels=[len(level) for level in tree.levels],
        clusters_s=round(clusters, 3),
        plan_s=round(plan, 3),
        step_s=round(statistics.median(seconds), 3),
        predict_s=round(predict, 3),
        peak_gb=round(peak, 2),
    )


if __name__ == "__main__":
    main()
