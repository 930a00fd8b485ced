"""HISTOGRAPH on deep GCNs: accuracy by depth on the public splits of Cora and Citeseer, ten seeds.

python benchmarks/histograph_deep.py --root DATA/planetoid --runs deep.jsonl --jobs 16

Full-batch training, Adam, the weights of the best validation accuracy. Both networks have the same settings
but for the readout, and the same variants of features, weight decay and dropout to choose from; HISTOGRAPH at
two layers also its frozen form, where a plain network is trained first and the readout and head then on its
activations. The mean validation accuracy of the first seeds chooses for each set, depth and network, and all
seeds run what was chosen.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable
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
FROZEN = {
    f"{name}, frozen": {**VARIANTS[name], "layers": 2, "frozen": True}
    for name in ("words", "unit rows, dropout 0.7")
}
"""What the plain network chooses at two layers, with HISTOGRAPH on its frozen activations."""
HEAD_RATE = 0.1
"""Learning rate of the frozen form's second stage, as a share of the first's."""
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
    variant = (VARIANTS | FROZEN)[settings["variant"]]
    x, topology, y, parts = load(root, settings["set"], variant["features"], device)
    torch.manual_seed(settings["seed"])
    options = {**NETWORK, "layers": settings["layers"], "dropout": variant["dropout"]}

    def network(model: str) -> NodeModel:
        made = NodeModel(x.shape[1], int(y.max()) + 1, **options, **READOUTS[model])
        return made.to(device)

    def fit(model: NodeModel, logits: Callable[[], Tensor], rate: float = 1.0) -> grid.Figures:
        @torch.no_grad()
        def accuracy(part: str) -> float:
            return float((logits()[parts[part]].argmax(1) == y[parts[part]]).float().mean())

        rows = train_full_batch(
            model,
            lambda: torch.nn.functional.cross_entropy(logits()[parts["train"]], y[parts["train"]]),
            lambda: accuracy("valid"),
            every=2,
            weight_decay=variant["decay"],
            **{**TRAINING, "learning_rate": TRAINING["learning_rate"] * rate},
        )
        best = max((row for row in rows if "valid" in row), key=lambda row: row["valid"])
        found = {"valid": best["valid"], "test": accuracy("test"), "loss": rows[-1]["loss"]}
        return {**{name: round(one, 4) for name, one in found.items()}, "epoch": best["epoch"]}

    if not variant.get("frozen"):
        whole = network(settings["model"])
        return fit(whole, lambda: whole(x, topology))
    plain = network("gcn")  # first: the same as the plain network's run of this seed
    first = fit(plain, lambda: plain(x, topology))
    model = network(settings["model"])
    with torch.no_grad():
        history = plain.backbone(x, topology)  # in evaluation mode
    model.backbone.load_state_dict(plain.backbone.state_dict())
    model.backbone.requires_grad_(False)
    model.begin_as(plain)
    ptr = torch.tensor([0, len(y)], device=device)
    second = fit(model, lambda: model.read(history, ptr), HEAD_RATE)
    return {**second, "plain": {name: first[name] for name in ("valid", "test")}}


Scores = dict[tuple[Any, ...], dict[str, float]]


def validated(lines: list[dict[str, Any]]) -> Scores:
    """Mean validation accuracy of every variant, for each set, network and depth."""
    cells: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for line in lines:
        settings = line["settings"]
        cell = cells.setdefault((settings["set"], settings["model"], settings["layers"]), {})
        cell.setdefault(settings["variant"], []).append(line["figures"]["valid"])
    return {key: {name: statistics.mean(one) for name, one in cell.items()} for key, cell in cells.items()}


def beside_plain(lines: list[dict[str, Any]], best: dict[tuple[Any, ...], str]) -> str:
    """What frozen runs that were chosen gain on the plain networks that they began with."""
    gains: dict[tuple[Any, ...], list[float]] = {}
    for line in lines:
        settings, figures = line["settings"], line["figures"]
        cell = (settings["set"], settings["model"], settings["layers"])
        if "plain" in figures and best.get(cell) == settings["variant"]:
            gains.setdefault(cell, []).append(100 * (figures["test"] - figures["plain"]["test"]))
    return "".join(
        f"\n\nOn {cell[0]} with {cell[2]} layers, HISTOGRAPH on frozen activations has "
        f"{statistics.mean(some):+.1f} ± {statistics.stdev(some) / len(some) ** 0.5:.1f} points (mean and "
        f"its standard error over {len(some)} seeds) beside the plain network that gave them."
        for cell, some in sorted(gains.items())
        if len(some) > 1
    )


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

    def variants(cell: tuple[Any, ...]) -> list[str]:
        known = VARIANTS if cell[1] == "gcn" else VARIANTS | FROZEN
        return [name for name, one in known.items() if cell[2] <= one["layers"]]

    open_to = {cell: variants(cell) for cell in cells}
    pilot = [one for cell in cells for one in runs(cell, open_to[cell], range(min(PILOT, given.seeds)))]
    scores = validated(grid.run(train, pilot, given))
    best = {cell: max(tried, key=tried.__getitem__) for cell, tried in scores.items()}
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
    choices = [
        [
            *map(str, cell),
            best[cell],
            "; ".join(f"{name} {100 * one:.1f}" for name, one in scores[cell].items()),
        ]
        for cell in cells
        if len(scores.get(cell, ())) > 1
    ]
    text = common.markdown_table(table[0], table[1:]) + (
        "\n\nTest accuracy in per cent, mean ± standard deviation (seeds), by layers. Public split; "
        f"{NETWORK['hidden']} wide, {TRAINING['epochs']} epochs of Adam at {TRAINING['learning_rate']}, "
        "weights of the best validation accuracy. Deep networks: words as they are, weight decay 5e-4, "
        "dropout 0.5. Up to 8 layers also rows of unit length with decay 2e-3, at 2 layers also either with "
        "dropout 0.7, and for HISTOGRAPH its frozen form: the plain network of the same seed is trained, "
        "then readout and head on its activations, beginning at its predictions, at "
        f"{HEAD_RATE} of the rate. The mean validation accuracy of the first seeds, at most {PILOT}, chose:"
        "\n\n"
    )
    text += common.markdown_table(
        ["set", "model", "layers", "chosen", "validation accuracy of all tried"], choices
    )
    text += beside_plain(lines, best)
    grid.record("histograph_deep", "HISTOGRAPH on deep GCNs", text, lines)


if __name__ == "__main__":
    main()
