"""From a graph to sequences of tokens: its nodes, their neighbourhoods, or clusters of an affinity tree.

GSM (Behrouz et al., arXiv:2411.15671, section 3 to 5). What a tokeniser derives from the graph is a plan of
plain tensors, made once for a graph that stays the same. Symbols: N nodes, D width, S scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphrec.errors import ConfigError
from graphrec.kernels.graph import CSR, spmm

from .blocks import GlobalEncoder, Sequences
from .clusters import Hierarchy, affinity_clusters, singletons
from .distances import at_levels, neighbours_at, pair_codes, scale_levels, within
from .hashing import Integers
from .orders import degree_order, depth_first_order

_MOST_PAIRS = 1 << 26
"""Pairs in sight of attention, beyond which a window must be given: each takes some bytes per head."""


class Graphs:
    """A batch of graphs in numpy, with what tokenisers ask of it made once.

    Args:
        x: Node features, float32 (N, F).
        source, target: Edges, int64 (E,).
        ptr: First node of every graph and N, int64 (B + 1,).
        rounds: Of colour refinement; no less than the layers of message passing before the tokens.
    """

    def __init__(
        self, x: NDArray[np.float32], source: Integers, target: Integers, ptr: Integers, rounds: int
    ) -> None:
        self.x, self.source, self.target, self.ptr, self.rounds = x, source, target, ptr, rounds

    @cached_property
    def tree(self) -> Hierarchy:
        """The affinity clusters."""
        return affinity_clusters(self.x, self.source, self.target, self.ptr, rounds=self.rounds)

    @cached_property
    def nodes(self) -> Hierarchy:
        """The nodes by themselves, from the tree if there is one."""
        if "tree" in self.__dict__:
            return self.tree
        return singletons(self.x, self.source, self.target, self.ptr, rounds=self.rounds)


class SequenceTokens(nn.Module):
    """A token per node, and a sequence per graph.

    Args:
        width: D.
        heads: Of attention.
        order: ``"node"``: by degree; ``"dfs"``: the leaves of the affinity tree, depth first.
        window: How far attention sees to either side; None for all of a graph.
        positions: Whether attention has the hierarchical positional encoding.
        scales: S of it.
        hops: Farthest distance that it tells apart.
        options: Further arguments of `GlobalEncoder`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        order: str,
        window: int | None,
        positions: bool,
        scales: int,
        hops: int,
        **options: Any,
    ) -> None:
        super().__init__()
        self.order, self.window, self.scales, self.hops = order, window, scales, hops
        self.encoder = GlobalEncoder(width, heads, scales=scales if positions else 0, hops=hops, **options)
        blocks = [getattr(block, "bias", None) for block in self.encoder.blocks]
        self.positions = any(bias is not None for bias in blocks)
        self.near = any(getattr(block, "kind", None) == "softmax" for block in self.encoder.blocks)

    def plan(self, graphs: Graphs, device: torch.device) -> Sequences:
        """Where the nodes of a batch stand.

        Raises:
            ConfigError: Too many pairs would be in sight.
        """
        tree = graphs.tree if self.positions or self.order == "dfs" else graphs.nodes
        ends = tree.levels[0].ends
        degree = np.bincount(ends.ravel(), minlength=len(graphs.x)).astype(np.int64)
        order = depth_first_order(tree) if self.order == "dfs" else degree_order(tree, degree)
        sizes = np.diff(graphs.ptr)
        reach = self._reach(int(sizes.max(initial=1)), len(graphs.x))
        codes = None
        if self.positions:
            codes = pair_codes(tree, order.nodes, scales=self.scales, hops=self.hops, reach=reach)
        nodes = torch.from_numpy(order.nodes)
        return Sequences(
            nodes.to(device),
            nodes.argsort().to(device),
            torch.from_numpy(graphs.ptr).to(device),
            tuple(sizes.tolist()),
            reach,
            _grouped(order.ties, device) if order.tied else None,
            None if codes is None else torch.from_numpy(codes).to(device),
        )

    def _reach(self, longest: int, nodes: int) -> int:
        reach = longest - 1 if self.window is None else min(self.window, longest - 1)
        if self.near and nodes * (2 * reach + 1) > _MOST_PAIRS:
            raise ConfigError(
                f"window={self.window}: attention over {nodes} nodes, up to {reach} to either side, is too"
                " much for memory; give a smaller window, or attention='linear'"
            )
        return reach

    def forward(self, x: Tensor, plan: Sequences) -> Tensor:
        """(N, D) -> (N, D)."""
        return self.encoder(x[plan.nodes], plan)[plan.places]


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of nodes, and which of them each node looks at; None where group i is node i's."""

    members: CSR
    chosen: Tensor | None


class GroupTokens(nn.Module):
    """A sequence per node, from what is far to itself: means over groups of nodes.

    Args:
        width: D.
        heads: Of attention.
        groups: ``"khop"``: the nodes at distance S, ..., 1; ``"bfs"``: its clusters on S levels of the tree,
            the root first.
        scales: S.
        options: Further arguments of `GlobalEncoder`.
    """

    def __init__(self, width: int, heads: int, *, groups: str, scales: int, **options: Any) -> None:
        super().__init__()
        self.groups, self.scales = groups, scales
        self.places = nn.Parameter(torch.randn(scales + 1, width) * 0.02)
        self.encoder = GlobalEncoder(width, heads, **options)

    def plan(self, graphs: Graphs, device: torch.device) -> list[Groups]:
        """The groups, the farthest first."""
        return list(
            map(_on(device), self._clusters(graphs.tree) if self.groups == "bfs" else self._shells(graphs))
        )

    def _clusters(self, tree: Hierarchy) -> list[Groups]:
        levels = scale_levels(tree.height, self.scales, leaves=False)
        found = []
        for scale in range(self.scales - 1, -1, -1):
            _, cluster = np.unique(at_levels(tree, levels[:, scale]), return_inverse=True)
            order, ptr, chosen = _grouped(cluster.reshape(-1), torch.device("cpu"))
            found.append(Groups(CSR(ptr, order, len(cluster)), chosen))
        return found

    def _shells(self, graphs: Graphs) -> list[Groups]:
        tree = graphs.nodes
        distance = within(neighbours_at(tree, np.zeros_like(tree.height)), self.scales).tocoo()
        found = []
        for hops in range(self.scales, 0, -1):
            here = distance.data == hops
            one, other = (torch.from_numpy(side[here].astype(np.int64)) for side in distance.coords)
            found.append(Groups(CSR.from_edges(other, one, len(graphs.x), len(graphs.x))[0], None))
        return found

    def forward(self, x: Tensor, plan: list[Groups]) -> Tensor:
        """(N, D) -> (N, D)."""
        tokens = []
        for group in plan:
            mean = spmm(group.members, x, reduce="mean")
            tokens.append(mean if group.chosen is None else mean[group.chosen])
        return self.encoder.rows(torch.stack([*tokens, x], 1) + self.places)[:, -1]


class MixedTokens(nn.Module):
    """Each node takes the two tokenisers that a router scores highest, times their scores, side by side.

    All tokenisers encode all nodes; the router chooses among what they give. The gradient reaches the router
    through the scores.

    Args:
        width: D.
        parts: At least two tokenisers.
    """

    def __init__(self, width: int, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.router = nn.Linear(width, len(parts))
        self.join = nn.Linear(2 * width, width)

    def plan(self, graphs: Graphs, device: torch.device) -> list[Any]:
        """That of every tokeniser."""
        return [part.plan(graphs, device) for part in self.parts]  # type: ignore[operator]

    def scores(self, x: Tensor) -> Tensor:
        """(N, D) -> shares of the tokenisers (N, T)."""
        return self.router(x).softmax(-1)

    def forward(self, x: Tensor, plan: list[Any]) -> Tensor:
        """(N, D) -> (N, D)."""
        encoded = torch.stack([part(x, own) for part, own in zip(self.parts, plan, strict=True)], 1)
        best, which = self.scores(x).topk(2, -1)
        chosen = encoded.gather(1, which.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return self.join((chosen * best.unsqueeze(-1)).flatten(1))


def _grouped(classes: Integers, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Members grouped by class, the groups' boundaries, and the class of each."""
    which = torch.from_numpy(classes)
    order = torch.argsort(which, stable=True)
    ptr = torch.nn.functional.pad(torch.bincount(which).cumsum(0), (1, 0))
    return order.to(device), ptr.to(device), which.to(device)


def _on(device: torch.device) -> Any:
    def move(group: Groups) -> Groups:
        chosen = None if group.chosen is None else group.chosen.to(device)
        return Groups(group.members.to(device), chosen)

    return move
