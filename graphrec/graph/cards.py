"""The cards of HISTOGRAPH and its baselines; importing this fills `graphrec.registry`.

A name builds `GraphModel` or, where it begins with ``node_``, `NodeModel` with some arguments preset.
"""

from __future__ import annotations

import inspect
from typing import Any

from graphrec.registry import Card, register_model

from .models import GraphModel, Network, NodeModel

_PARITY = "tests/graph/test_graph_convolutions.py::test_equals_pyg"
_PROPERTIES = {
    "a graph alone equals itself in any batch": "tests/graph/test_graph_models.py::test_batch_independence",
    "renumbering nodes changes nothing": "tests/graph/test_graph_models.py::test_permutation",
}
_NODE_PROPERTIES = {
    "renumbering nodes renumbers the output": "tests/graph/test_graph_models.py::test_node_permutation",
}
_DIFFERS = (
    "Attention over layers and nodes is computed per graph, not over the nodes of a batch, so that a graph's "
    "output does not depend on its batch; a sum of scores near zero is bounded. Made from the paper's "
    "formulas, without sight of the official code."
)

_BASELINES = {
    "gcn": ("GCN: Semi-supervised classification with graph convolutional networks", "1609.02907"),
    "gin": ("GIN: How powerful are graph neural networks?", "1810.00826"),
    "gat": ("GAT: Graph attention networks", "1710.10903"),
    "graphsage": ("GraphSAGE: Inductive representation learning on large graphs", "1706.02216"),
    "gatedgcn": ("GatedGCN: Residual gated graph convnets", "1711.07553"),
    "gps": ("GPS: Recipe for a general, powerful, scalable graph transformer", "2205.12454"),
    "mlp": (
        "The same network without edges, a floor (as in Benchmarking graph neural networks)",
        "2003.00982",
    ),
}


def register_preset(card: Card, model: type[Network], preset: dict[str, Any]) -> None:
    """Register ``card`` for a network class with some of its arguments preset."""

    def build(in_features: int, classes: int, **options: Any) -> Network:
        return model(in_features, classes, **{**preset, **options})  # type: ignore[call-arg, arg-type]

    parameters = [
        one.replace(default=preset.get(one.name, one.default))
        for one in inspect.signature(model).parameters.values()
    ]
    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    register_model(card)(build)


def _histograph() -> None:
    title = "HISTOGRAPH: Learning from historical activations in graph neural networks (ICLR 2026)"
    facts: dict[str, Any] = {
        "title": title,
        "paper": "https://arxiv.org/abs/2601.01123",
        "code": "https://github.com/YanivDorGalron/HISTOGRAPH",
        "differs": _DIFFERS,
        "multi_label": False,
    }
    ours = {"the readout's formulas": "tests/graph/test_histograph.py::test_formulas"}
    published = {
        "IMDB-BINARY accuracy": 0.872,
        "IMDB-MULTI accuracy": 0.619,
        "MUTAG accuracy": 0.979,
        "PTC accuracy": 0.791,
        "NCI1 accuracy": 0.859,
        "PROTEINS accuracy": 0.978,
    }
    graph = Card(
        name="histograph", task="graph", published=published, verified={**ours, **_PROPERTIES}, **facts
    )
    register_preset(graph, GraphModel, {})
    published = {
        "Cora accuracy, 2 layers": 0.813,
        "Cora accuracy, 64 layers": 0.775,
        "Citeseer accuracy, 2 layers": 0.709,
        "Citeseer accuracy, 64 layers": 0.634,
    }
    node = Card(
        name="node_histograph",
        task="node",
        published=published,
        verified={
            **ours,
            **_NODE_PROPERTIES,
            "sparse features equal dense ones": "tests/graph/test_rows.py::test_a_network_for_nodes",
        },
        **facts,
    )
    register_preset(node, NodeModel, {})


def _baselines() -> None:
    for name, (title, paper) in _BASELINES.items():
        facts: dict[str, Any] = {
            "title": title,
            "paper": f"https://arxiv.org/abs/{paper}",
            "multi_label": False,
        }
        parity = {"parity with PyG's layer": _PARITY} if name not in ("gps", "mlp") else {}
        graph = Card(name=name, task="graph", verified={**parity, **_PROPERTIES}, **facts)
        readout = "sum" if name == "gin" else "mean"
        register_preset(graph, GraphModel, {"conv": name, "readout": readout})
        node = Card(name=f"node_{name}", task="node", verified={**parity, **_NODE_PROPERTIES}, **facts)
        register_preset(node, NodeModel, {"conv": name, "readout": "last"})


_histograph()
_baselines()
