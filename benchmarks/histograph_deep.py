"""HISTOGRAPH on deep GCNs: accuracy by depth on the public splits of Cora and Citeseer, ten seeds.

python benchmarks/histograph_deep.py --root DATA/planetoid --runs deep.jsonl --jobs 16

Full-batch training, Adam, the weights of the best validation accuracy. Both networks have the same settings
but for the readout, and the same choice of features and weight decay, which mean validation accuracy makes
for each set, depth and network.
"""

from __future__ import annotations

import argparse
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import common
import grid
import torch
from torch import Tensor

from graphrec.graph import NodeModel, Topology
from graphrec.graph.hypergraph.fullbatch import train_full_batch
from graphrec.graph.rows import Features, compact
from graphrec.pipelines.graphs import read_planetoid

TRAINING = {"epochs": 200, "learning_rate": 0.01}
VARIANTS = {"words": 5e-4, "unit rows": 2e-3}
"""Features and the weight decay that goes with their size."""
SHALLOW = 8
"""Up to here both variants run. In deeper networks the gradients of unit rows are smaller than their weight
decay, and nothing is learned; only the words are tried."""
NETWORK = {"hidden": 64, "conv": "gcn", "dropout": 0.5}
READOUTS: dict[str, dict[str, Any]] = {
    "gcn": {"readout": "last"},
    "gcn + histograph": {"readout": "histograph", "readout_options": {"node_attention": False}},
    "gcn + histograph, node attention": {"readout": "histograph"},
}
PUBLISHED = {
    ("cora", "gcn"): (81.1, 69.5, 60.3, 28.7),
    ("cora", "gcn + histograph"): (81.3, 80.7, 80.6, 77.5),
    ("citeseer", "gcn"): (70.8, 30.2, 25.0, 20.0),
    ("citeseer", "gcn + histograph"): (70.9, 69.9, 67.2, 63.4),
}


@cache
def load(
    root: Path, name: str, variant: str, device: str
) -> tuple[Features, Topology, Tensor, dict[str, Tensor]]:
    """Features, edges, labels and the nodes of each part, on a device; read once in a process."""
    data = read_planetoid(root, name)
    x = data.x if variant == "words" else torch.nn.functional.normalize(data.x)
    parts = {
        part: mask.nonzero().flatten().to(device)
        for part, mask in (("train", data.train_mask), ("valid", data.val_mask), ("test", data.test_mask))
    }
    features = compact(x) if device == "cpu" else x.to(device)
    return features, Topology.of(data.edge_index, len(x)).to(device), data.y.to(device), parts


def train(settings: grid.Settings, root: Path, device: str) -> grid.Figures:
    """Accuracies of one run on the validation and test nodes."""
    x, topology, y, parts = load(root, settings["set"], settings["variant"], device)
    decay = VARIANTS[settings["variant"]]
    torch.manual_seed(settings["seed"])
    options = {**NETWORK, **READOUTS[settings["model"]], "layers": settings["layers"]}
    model = NodeModel(x.shape[1], int(y.max()) + 1, **options).to(device)

    def loss() -> Tensor:
        rows = parts["train"]
        return torch.nn.functional.cross_entropy(model(x, topology)[rows], y[rows])

    @torch.no_grad()
    def accuracy(part: str) -> float:
        rows = parts[part]
        return float((model(x, topology)[rows].argmax(1) == y[rows]).float().mean())

    rows = train_full_batch(model, loss, lambda: accuracy("valid"), every=2, weight_decay=decay, **TRAINING)
    best = max((row for row in rows if "valid" in row), key=lambda row: row["valid"])
    return {
        "valid": round(best["valid"], 4),
        "test": round(accuracy("test"), 4),
        "epoch": best["epoch"],
        "loss": round(rows[-1]["loss"], 4),
    }


def chosen(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the variant with the best mean validation accuracy, for each set, depth and network."""
    cells: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        settings = line["settings"]
        cell = cells.setdefault(tuple(settings[key] for key in ("set", "model", "layers")), {})
        cell.setdefault(settings["variant"], []).append(line)

    def validated(some: list[dict[str, Any]]) -> float:
        return statistics.mean(line["figures"]["valid"] for line in some)

    best = [max(cell.values(), key=validated) for cell in cells.values()]
    return [line for some in best for line in some]


def main() -> None:
    """Run and record."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    grid.add_options(options)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--sets", nargs="+", default=["cora", "citeseer"])
    options.add_argument("--models", nargs="+", choices=list(READOUTS), default=list(READOUTS)[:2])
    options.add_argument("--layers", type=int, nargs="+", default=[2, 8, 32, 64])
    given = options.parse_args()
    wanted = [  # the longest of every seed first: cut off, the file holds whole seeds
        {"set": name, "model": model, "layers": layers, "variant": variant, "seed": seed}
        for seed in range(given.seeds)
        for layers in sorted(given.layers, reverse=True)
        for name in given.sets
        for model in given.models
        for variant in (VARIANTS if layers <= SHALLOW else ["words"])
    ]
    lines = chosen(grid.run(train, wanted, given))
    if not lines:
        return
    table = grid.chart(lines, ("set", "model"), "layers", "test")
    for row in table[1:]:
        published = PUBLISHED.get((row[0], row[1]))
        row.append(" / ".join(map(str, published)) if published else "–")
    table[0].append("published, 2 / 8 / 32 / 64")
    text = common.markdown_table(table[0], table[1:]) + (
        "\n\nTest accuracy in per cent, mean ± standard deviation (seeds), by layers. Public split; "
        f"{NETWORK['hidden']} wide, dropout {NETWORK['dropout']}, {TRAINING['epochs']} epochs of Adam at "
        f"{TRAINING['learning_rate']}, weights of the best validation accuracy. Words as they are with "
        f"weight decay {VARIANTS['words']} or, up to {SHALLOW} layers, in rows of unit length with "
        f"{VARIANTS['unit rows']}: whichever has the better mean validation accuracy."
    )
    grid.record("histograph_deep", "HISTOGRAPH on deep GCNs", text, lines)


if __name__ == "__main__":
    main()
