"""HISTOGRAPH on deep GCNs: accuracy by depth on the public splits of Cora and Citeseer, ten seeds.

python benchmarks/histograph_deep.py --root DATA/planetoid --runs deep.jsonl --jobs 16

Full-batch training, Adam, the weights of the best validation accuracy. Both networks have the same settings
but for the readout, and the same variants of features, weight decay and dropout to choose from: the mean
validation accuracy of the first seeds chooses for each set, depth and network, and all seeds run what was
chosen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
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
VARIANTS: dict[str, dict[str, Any]] = {
    "words": {"features": "words", "decay": 5e-4, "dropout": 0.5, "layers": 64},
    "unit rows": {"features": "unit rows", "decay": 2e-3, "dropout": 0.5, "layers": 8},
    "words, dropout 0.7": {"features": "words", "decay": 5e-4, "dropout": 0.7, "layers": 2},
    "unit rows, dropout 0.7": {"features": "unit rows", "decay": 2e-3, "dropout": 0.7, "layers": 2},
}
"""Features, the weight decay that goes with their size, dropout, and the depth up to which it is tried. In
deep networks the gradients of unit rows are smaller than their weight decay, and nothing is learned."""
PILOT = 3
"""Seeds that choose a variant."""
NETWORK = {"hidden": 64, "conv": "gcn"}
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
    root: Path, name: str, kind: str, device: str
) -> tuple[Features, Topology, Tensor, dict[str, Tensor]]:
    """Features, edges, labels and the nodes of each part, on a device; read once in a process."""
    data = read_planetoid(root, name)
    x = data.x if kind == "words" else torch.nn.functional.normalize(data.x)
    parts = {
        part: mask.nonzero().flatten().to(device)
        for part, mask in (("train", data.train_mask), ("valid", data.val_mask), ("test", data.test_mask))
    }
    features = compact(x) if device == "cpu" else x.to(device)
    return features, Topology.of(data.edge_index, len(x)).to(device), data.y.to(device), parts


def train(settings: grid.Settings, root: Path, device: str) -> grid.Figures:
    """Accuracies of one run on the validation and test nodes."""
    variant = VARIANTS[settings["variant"]]
    x, topology, y, parts = load(root, settings["set"], variant["features"], device)
    torch.manual_seed(settings["seed"])
    options = {**NETWORK, **READOUTS[settings["model"]], "dropout": variant["dropout"]}
    model = NodeModel(x.shape[1], int(y.max()) + 1, layers=settings["layers"], **options).to(device)

    def loss() -> Tensor:
        rows = parts["train"]
        return torch.nn.functional.cross_entropy(model(x, topology)[rows], y[rows])

    @torch.no_grad()
    def accuracy(part: str) -> float:
        rows = parts[part]
        return float((model(x, topology)[rows].argmax(1) == y[rows]).float().mean())

    rows = train_full_batch(
        model, loss, lambda: accuracy("valid"), every=2, weight_decay=variant["decay"], **TRAINING
    )
    best = max((row for row in rows if "valid" in row), key=lambda row: row["valid"])
    return {
        "valid": round(best["valid"], 4),
        "test": round(accuracy("test"), 4),
        "epoch": best["epoch"],
        "loss": round(rows[-1]["loss"], 4),
    }


def chosen(lines: list[dict[str, Any]]) -> dict[tuple[Any, ...], str]:
    """The variant with the best mean validation accuracy, for each set, network and depth."""
    cells: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for line in lines:
        settings = line["settings"]
        cell = cells.setdefault((settings["set"], settings["model"], settings["layers"]), {})
        cell.setdefault(settings["variant"], []).append(line["figures"]["valid"])
    return {key: max(cell, key=lambda variant: statistics.mean(cell[variant])) for key, cell in cells.items()}


def main() -> None:
    """Run and record."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    grid.add_options(options)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--sets", nargs="+", default=["cora", "citeseer"])
    options.add_argument("--models", nargs="+", choices=list(READOUTS), default=list(READOUTS)[:2])
    options.add_argument("--layers", type=int, nargs="+", default=[2, 8, 32, 64])
    given = options.parse_args()
    cells = [
        (name, model, layers)
        for layers in sorted(given.layers, reverse=True)
        for name in given.sets
        for model in given.models
    ]

    def runs(cell: tuple[Any, ...], variants: Iterable[str], seeds: range) -> list[grid.Settings]:
        named = dict(zip(("set", "model", "layers"), cell, strict=True))
        return [{**named, "variant": variant, "seed": seed} for seed in seeds for variant in variants]

    open_to = {cell: [name for name, one in VARIANTS.items() if cell[2] <= one["layers"]] for cell in cells}
    pilot = [one for cell in cells for one in runs(cell, open_to[cell], range(min(PILOT, given.seeds)))]
    best = chosen(grid.run(train, pilot, given))
    wanted = [one for cell in cells if cell in best for one in runs(cell, [best[cell]], range(given.seeds))]
    wanted.sort(key=lambda one: one["seed"])  # cut off, the file holds whole seeds
    lines = grid.run(train, wanted, given)
    if not lines:
        return
    table = grid.chart(lines, ("set", "model"), "layers", "test")
    for row in table[1:]:
        published = PUBLISHED.get((row[0], row[1]))
        row.append(" / ".join(map(str, published)) if published else "–")
    table[0].append("published, 2 / 8 / 32 / 64")
    choices = [[*map(str, cell), best[cell]] for cell in cells if cell in best and len(open_to[cell]) > 1]
    text = common.markdown_table(table[0], table[1:]) + (
        "\n\nTest accuracy in per cent, mean ± standard deviation (seeds), by layers. Public split; "
        f"{NETWORK['hidden']} wide, {TRAINING['epochs']} epochs of Adam at {TRAINING['learning_rate']}, "
        "weights of the best validation accuracy. Deep networks: words as they are, weight decay 5e-4, "
        "dropout 0.5. Up to 8 layers also rows of unit length with decay 2e-3, at 2 layers also either with "
        f"dropout 0.7; the mean validation accuracy of the first seeds, at most {PILOT}, chose:\n\n"
    )
    text += common.markdown_table(["set", "model", "layers", "chosen"], choices)
    grid.record("histograph_deep", "HISTOGRAPH on deep GCNs", text, lines)


if __name__ == "__main__":
    main()
