"""Train a GIN on many small graphs, with graphrec's batches and kernels or with PyG's loader and layers.

Settings: ``system`` ("graphrec" or "pyg"), ``fused`` (of PyG's Adam), ``kept`` (whether freed memory stays in
the process, as with graphrec's trainer), ``graphs``, ``nodes``, ``degree``, ``batch_size``, ``hidden``,
``layers``, ``epochs``. Both compute the same function from the same weights, which is checked on one batch,
logits and gradients, before anything is timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from meter import Clock, finish, settings
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv, global_add_pool

from graphrec.graph import GraphBatches, GraphModel
from graphrec.module_estimator import ClassMetrics
from graphrec.pipelines.graphs import GraphSet
from graphrec.training import TrainConfig, Trainer
from graphrec.training.freed_memory import VARIABLE, keep_freed_memory

FEATURES, CLASSES = 16, 2


def make(graphs: int, nodes: int, degree: int) -> list[Data]:
    """Graphs of so many nodes and ``degree`` undirected edges for each two nodes, drawn uniformly."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(graphs):
        pairs = torch.randint(0, nodes, (2, nodes * degree // 2), generator=generator)
        x = torch.randn(nodes, FEATURES, generator=generator)
        edge_index = torch.cat([pairs, pairs.flip(0)], 1)
        found.append(Data(x=x, edge_index=edge_index, y=torch.tensor([i % CLASSES])))
    return found


class PyG(nn.Module):
    """The layers of a `GraphModel`, with PyG's convolution and pooling in place of ours."""

    def __init__(self, model: GraphModel) -> None:
        super().__init__()
        backbone = model.backbone
        self.embed, self.norms, self.head = backbone.embed, backbone.norms, model.head
        self.convs = nn.ModuleList(GINConv(conv.nn, train_eps=True) for conv in backbone.convs)
        for conv, ours in zip(self.convs, backbone.convs, strict=True):
            conv.eps.data.copy_(ours.eps.data)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """(B, C)."""
        x = self.embed(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index)).relu()
        return self.head(global_add_pool(x, batch))


def check(model: GraphModel, graphs: GraphSet) -> None:
    """Both forms give the same logits and gradients.

    Raises:
        SystemExit: They do not.
    """
    network = PyG(model)  # first: PyG's layers draw their weights anew, and ours share them
    batch, chosen = graphs.batch(range(8)), torch.arange(8)
    ours = model.logits(GraphBatches(graphs, 8).cut(chosen))
    theirs = network(batch.x, batch.edge_index, batch.batch)
    grads = [
        torch.autograd.grad(one.square().sum(), model.backbone.embed.weight)[0] for one in (ours, theirs)
    ]
    for what, (one, other) in {"logits": (ours, theirs), "gradients": grads}.items():
        wrong = float((one - other).norm() / other.norm())
        if wrong > 1e-4:
            raise SystemExit(f"{what} differ by {wrong:.2g}")


def train_with_pyg(case: dict[str, Any], model: GraphModel, graphs: list[Data]) -> Callable[[int], None]:
    """A loop as PyG's examples have it."""
    network, loader = PyG(model), DataLoader(graphs, case["batch_size"], shuffle=True)
    optimizer = torch.optim.Adam(network.parameters(), fused=case["fused"])

    def train(epochs: int) -> None:
        network.train()
        for _ in range(epochs):
            for batch in loader:
                optimizer.zero_grad()
                F.cross_entropy(network(batch.x, batch.edge_index, batch.batch), batch.y).backward()
                optimizer.step()

    return train


def train_with_graphrec(case: dict[str, Any], model: GraphModel, graphs: list[Data]) -> Callable[[int], None]:
    """What `GraphClassifier.fit` runs, the trainer with its checks and its history."""
    source = GraphBatches(GraphSet.from_data_list(graphs), case["batch_size"], shuffle=True)

    def train(epochs: int) -> None:
        config = TrainConfig(epochs=epochs, scheduler="none", seed=0, progress=False, accelerator="cpu")
        Trainer(config).fit(model, source, None, metrics=ClassMetrics())

    return train


def main() -> None:
    """Train one epoch unmeasured and the others by the clock."""
    case = settings()
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    graphs = make(case["graphs"], case["nodes"], case["degree"])
    sizes = {"hidden": case["hidden"], "layers": case["layers"]}
    model = GraphModel(FEATURES, CLASSES, conv="gin", readout="sum", **sizes)
    check(model, GraphSet.from_data_list(graphs))
    make_training = train_with_graphrec if case["system"] == "graphrec" else train_with_pyg
    if not case["kept"]:
        os.environ[VARIABLE] = "0"
    elif case["system"] == "pyg" and not keep_freed_memory():
        raise SystemExit("malloc's thresholds cannot be set here")
    train = make_training(case, model, graphs)
    train(1)
    clock = Clock()
    clock.restart()
    train(case["epochs"])
    wall, cpu = clock.read()
    trained = len(graphs) * case["epochs"]
    figures = {"graphs_per_cpu_s": round(trained / cpu, 1), "graphs_per_s": round(trained / wall, 1)}
    finish(["torch", "torch-geometric", "graphrec"], **figures)


if __name__ == "__main__":
    main()
