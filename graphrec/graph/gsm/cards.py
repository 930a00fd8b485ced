"""The cards of GSM and GSM++; importing this fills `graphrec.registry`."""

from __future__ import annotations

from typing import Any

from graphrec.registry import Card

from ..cards import register_preset
from .model import GSMGraphModel, GSMNodeModel

_TITLE = "{}: Best of both worlds: advantages of hybrid graph sequence models (ICML 2025)"
_DIFFERS = (
    "A reconstruction: no official code is known. Chosen here: clusters by distances of input features, with "
    "all tied edges picked; clusters' parts ordered by size; distances of clusters in the positional "
    "encoding are cut off; Mamba runs in both directions; attention sees a window of the sequence; the "
    "router learns through its scores."
)
_TESTS = "tests/graph/test_gsm"
_GRAPH = {
    "a graph alone equals itself in any batch": "tests/graph/test_graph_models.py::test_batch_independence",
    "renumbering nodes changes nothing": "tests/graph/test_graph_models.py::test_permutation",
}
_NODE = {
    "renumbering nodes renumbers the output": "tests/graph/test_graph_models.py::test_node_permutation",
}
_MAMBA = {"Mamba's layer equals a loop over its equations": f"{_TESTS}_blocks.py::test_mamba_is_a_loop"}
_TREE = {
    "clusters equal Borůvka's, edge by edge": f"{_TESTS}_clusters.py::test_clusters_are_boruvkas",
}
_MIXTURE = {"the router's two choices, by hand": f"{_TESTS}.py::test_mixture_by_hand"}

_VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, float], dict[str, float], dict[str, str]]] = {
    "gsm": (
        "GSM with node tokens and a Transformer",
        {"tokeniser": "node", "encoder": "transformer", "positions": False},
        {},
        {},
        {},
    ),
    "gsm++": (
        "GSM++ with clusters in depth-first order",
        {"tokeniser": "dfs"},
        {"MNIST accuracy": 0.9829, "CIFAR10 accuracy": 0.7692, "MalNet-Tiny accuracy": 0.9389},
        {"Roman-empire accuracy": 0.9124, "Amazon-ratings accuracy": 0.5361, "Minesweeper AUC": 0.9145},
        _TREE | _MAMBA,
    ),
    "gsm++bfs": (
        "GSM++ with clusters from coarse to fine",
        {"tokeniser": "bfs"},
        {"MNIST accuracy": 0.9848, "CIFAR10 accuracy": 0.7659, "MalNet-Tiny accuracy": 0.9417},
        {"Roman-empire accuracy": 0.9003, "Amazon-ratings accuracy": 0.5381, "Minesweeper AUC": 0.9109},
        _TREE | _MAMBA,
    ),
    "gsm++mot": (
        "GSM++ with a mixture of tokenisers",
        {"tokeniser": ["node", "khop", "dfs", "bfs"]},
        {"MNIST accuracy": 0.9884, "CIFAR10 accuracy": 0.7781, "MalNet-Tiny accuracy": 0.9437},
        {"Roman-empire accuracy": 0.9177, "Amazon-ratings accuracy": 0.5390, "Minesweeper AUC": 0.9149},
        _TREE | _MAMBA | _MIXTURE,
    ),
}


def _register() -> None:
    for name, (title, preset, on_graphs, on_nodes, verified) in _VARIANTS.items():
        facts: dict[str, Any] = {
            "title": _TITLE.format(title),
            "paper": "https://arxiv.org/abs/2411.15671",
            "differs": _DIFFERS,
            "multi_label": False,
        }
        graph = Card(name=name, task="graph", published=on_graphs, verified=verified | _GRAPH, **facts)
        register_preset(graph, GSMGraphModel, preset)
        node = Card(name=f"node_{name}", task="node", published=on_nodes, verified=verified | _NODE, **facts)
        register_preset(node, GSMNodeModel, preset)


_register()
