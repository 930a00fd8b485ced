"""Hypergraph networks and LightHGNN's student on a CPU, interleaved in this one process.

Settings: ``case`` is "inference", "training" or "one vertex"; the rest are sizes. Contenders get the same
weights, and their outputs are compared before anything is timed. dhg takes part where it is installed, unless
``without_dhg``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from meter import finish, settings
from run_attention import measured
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import HypergraphConv

from graphrec.graph.hypergraph import HGNN, HGNNPlus, HypergraphNetwork, Incidence, LightStudent
from graphrec.kernels import CSR, spmm

STUDENT, NARROW = "LightHGNN's student", "student of 32 channels"
OURS, OURS_PLUS = "graphrec HGNN", "graphrec HGNN+"
Forward = Callable[[Tensor], Tensor]


class PyG(nn.Module):
    """Two layers of HypergraphConv with the weights of our HGNN+, which does the same sums."""

    def __init__(self, ours: HypergraphNetwork) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            HypergraphConv(layer.theta.in_features, layer.theta.out_features) for layer in ours.layers
        )
        for mine, theirs in zip(ours.layers, self.layers, strict=True):
            theirs.lin.weight.data.copy_(mine.theta.weight)

    def forward(self, x: Tensor, pairs: Tensor) -> Tensor:
        """Logits."""
        return self.layers[1](F.relu(self.layers[0](x, pairs)), pairs)


def draw(case: dict[str, Any]) -> Tensor:
    """Hyperedges of about ``size`` vertices drawn uniformly, (2, K), no pair twice, no vertex left out."""
    vertices, edges, size = case["vertices"], case["edges"], case["size"]
    owner = torch.arange(edges).repeat_interleave(size - 1)
    pairs = torch.stack([owner, torch.randint(0, vertices, owner.shape)])
    everyone = torch.stack([torch.arange(vertices) % edges, torch.arange(vertices)])
    return torch.unique(torch.cat([pairs, everyone], dim=1), dim=1).flip(0)


def part(graph: CSR, rows: Tensor, columns: Tensor) -> CSR:
    """Some rows of a graph, its columns renumbered to those given (ascending, and all that occur)."""
    count = graph.degree[rows].long()
    ptr = F.pad(count.cumsum(0), (1, 0))
    start = torch.repeat_interleave(graph.ptr[rows].long() - ptr[:-1], count)
    index = graph.index[start + torch.arange(int(ptr[-1]))]
    return CSR(ptr, torch.searchsorted(columns, index.long()), len(columns))


def around(graph: CSR, rows: Tensor) -> Tensor:
    """All columns of some rows, ascending."""
    count = graph.degree[rows].long()
    ptr = F.pad(count.cumsum(0), (1, 0))
    start = torch.repeat_interleave(graph.ptr[rows].long() - ptr[:-1], count)
    return torch.unique(graph.index[start + torch.arange(int(ptr[-1]))].long())


def gathered(net: HypergraphNetwork, x: Tensor, incidence: Incidence, vertex: int) -> Tensor:
    """One vertex's logits under HGNN from its neighbourhood of two hops alone, (1, C)."""
    ask = torch.tensor([vertex])
    near_edges = around(incidence.to_vertices, ask)
    near = around(incidence.to_edges, near_edges)
    far_edges = around(incidence.to_vertices, near)
    far = around(incidence.to_edges, far_edges)
    root, factor = incidence.vertex_inverse_root, incidence.edge_factor

    def layer(z: Tensor, into: Tensor, edges: Tensor, out: Tensor) -> Tensor:
        inner = spmm(part(incidence.to_edges, edges, into), z * root[into]) * factor[edges]
        return spmm(part(incidence.to_vertices, out, edges), inner) * root[out]

    hidden = F.relu(layer(net.layers[0].theta(x[far]), far, far_edges, near))
    return layer(net.layers[1].theta(hidden), near, near_edges, ask)


def dhg_networks(
    ours: dict[str, HypergraphNetwork], pairs: Tensor, case: dict[str, Any]
) -> dict[str, tuple[nn.Module, Forward]]:
    """DeepHypergraph's HGNN and HGNN+ with our weights."""
    import dhg

    lists: list[list[int]] = [[] for _ in range(case["edges"])]
    for vertex, edge in pairs.T.tolist():
        lists[edge].append(vertex)
    graph = dhg.Hypergraph(case["vertices"], lists)
    made: dict[str, tuple[nn.Module, Forward]] = {}
    for name, kind in ((OURS, dhg.models.HGNN), (OURS_PLUS, dhg.models.HGNNP)):
        net = kind(case["features"], case["hidden"], case["classes"], drop_rate=0.0)
        net.load_state_dict(ours[name].state_dict())
        made[name.replace("graphrec", "dhg")] = (net, lambda x, net=net: net(x, graph))
    return made


def contenders(case: dict[str, Any], pairs: Tensor) -> tuple[dict[str, tuple[nn.Module, Forward]], Incidence]:
    """Modules and their forwards by name, checked against each other."""
    sizes = (case["features"], case["classes"])
    incidence = Incidence.from_pairs(pairs, case["vertices"], case["edges"])
    ours = {
        OURS: HGNN(*sizes, hidden=case["hidden"], dropout=0.0),
        OURS_PLUS: HGNNPlus(*sizes, hidden=case["hidden"], dropout=0.0),
    }
    for net in ours.values():
        for layer in net.layers:
            nn.init.zeros_(layer.theta.bias)  # PyG adds it elsewhere
    peer = PyG(ours[OURS_PLUS])
    made: dict[str, tuple[nn.Module, Forward]] = {}
    for name, hidden in ((STUDENT, 128), (NARROW, case["hidden"])):
        student = LightStudent(*sizes, hidden=hidden, dropout=0.0)
        made[name] = (student, student)
    made |= {name: (net, lambda x, net=net: net(x, incidence)) for name, net in ours.items()}
    made["PyG HypergraphConv"] = (peer, lambda x: peer(x, pairs))
    if importlib.util.find_spec("dhg") and not case.get("without_dhg"):
        made |= dhg_networks(ours, pairs, case)
    compare(made, torch.randn(case["vertices"], case["features"]))
    return made, incidence


@torch.no_grad()
def compare(made: dict[str, tuple[nn.Module, Forward]], x: Tensor) -> None:
    """Stop when two that should agree do not."""
    plus = made[OURS_PLUS][1](x)
    for name, (_, forward) in made.items():
        truth = made[OURS][1](x) if name.endswith("HGNN") else plus
        error = float((forward(x) - truth).norm() / truth.norm())
        if name not in (STUDENT, NARROW) and not error < 1e-4:
            raise ArithmeticError(f"{name} differs from graphrec by {error:.2e}")


def steps_of(case: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What is timed, by contender."""
    made, incidence = contenders(case, draw(case))
    x, y = (
        torch.randn(case["vertices"], case["features"]),
        torch.randint(0, case["classes"], (case["vertices"],)),
    )

    def trained(module: nn.Module, forward: Forward) -> Callable[[], Any]:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(forward(x), y).backward()
            optimizer.step()

        return step

    if case["case"] == "training":
        return {name: trained(module.train(), forward) for name, (module, forward) in made.items()}
    for module, _ in made.values():
        module.eval()
    steps: dict[str, Callable[[], Any]] = {
        name: torch.no_grad()(lambda forward=forward: forward(x)) for name, (_, forward) in made.items()
    }
    if case["case"] == "inference":
        return steps
    net, vertex = made[OURS][0], int(torch.randint(0, case["vertices"], ()))
    with torch.no_grad():
        torch.testing.assert_close(
            gathered(net, x, incidence, vertex)[0], steps[OURS]()[vertex], atol=1e-4, rtol=1e-4
        )
    one = x[vertex : vertex + 1]
    return {
        STUDENT: torch.no_grad()(lambda: made[STUDENT][1](one)),
        f"{OURS}, two hops": torch.no_grad()(lambda: gathered(net, x, incidence, vertex)),
        f"{OURS}, all": steps[OURS],
    }


def main() -> None:
    """One case: check, then time all contenders."""
    case = settings()
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    steps = steps_of(case)
    libraries = ["torch", "graphrec", "torch-geometric"]
    libraries += ["dhg"] if any(name.startswith("dhg") for name in steps) else []
    finish(libraries, runs=measured(steps, case["repeats"], least=0.05))


if __name__ == "__main__":
    main()
