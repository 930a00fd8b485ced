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
from torch_geometric.utils import to_undirected

from graphrec.graph import GraphBatches, GraphModel
from graphrec.module_estimator import ClassMetrics
from graphrec.pipelines.graphs import GraphSet
from graphrec.training import TrainConfig, Trainer
from graphrec.training.freed_memory import VARIABLE, keep_freed_memory

FEATURES, CLASSES = 7, 2


def make(graphs: int, nodes: int, degree: float) -> list[Data]:
    """Graphs of two thirds to four thirds of ``nodes`` nodes, with ``degree / 2`` undirected edges for each,
    drawn uniformly without loops and duplicates; one-hot features.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(graphs):
        size = int(torch.randint(2 * nodes // 3, 4 * nodes // 3 + 1, (), generator=generator))
        pairs = torch.randint(0, size, (2, int(size * degree / 2)), generator=generator)
        edge_index = to_undirected(pairs[:, pairs[0] != pairs[1]], num_nodes=size)
        x = F.one_hot(torch.randint(0, FEATURES, (size,), generator=generator), FEATURES).float()
        found.append(Data(x=x, edge_index=edge_index, y=torch.tensor([i % CLASSES])))
    return found


class PyG(nn.Module):
    """The layers of a `GraphModel`, with PyG's convolution and pooling in place of ours."""

    def __init__(self, model: GraphModel) -> None:
        super().__init__()
        self.head = model.head
        layers = (nn.Sequential(*conv.nn, nn.ReLU()) for conv in model.backbone.convs)
        self.convs = nn.ModuleList(GINConv(layer) for layer in layers)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        """(B, C)."""
        pooled = []
        for conv in self.convs:
            x = conv(x, edge_index)
            pooled.append(global_add_pool(x, batch))
        return self.head(torch.cat(pooled, 1))


def check(model: GraphModel, graphs: GraphSet) -> None:
    """Both forms give the same logits and gradients.

    Raises:
        SystemExit: They do not.
    """
    network = PyG(model)  # PyG's layers share the weights with ours, and draw them anew when they are made
    batch, chosen = graphs.batch(range(8)), torch.arange(8)
    ours = model.logits(GraphBatches(graphs, 8).cut(chosen))
    theirs = network(batch.x, batch.edge_index, batch.batch)
    first = model.backbone.convs[0].nn[0].weight
    grads = [torch.autograd.grad(one.square().sum(), first)[0] for one in (ours, theirs)]
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
    form: dict[str, Any] = {"conv": "gin0", "norm": "none", "embed": False, "readout": "sum", "jk": "cat"}
    model = GraphModel(FEATURES, CLASSES, **form, **sizes)
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
